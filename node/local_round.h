#pragma once
#include <functional>
#include <mutex>

#include "data/data.h"
#include "distill/distill.h"
#include "node/guard.h"
#include "node/session.h"
#include "plan/plan.h"

namespace preceptor::node {

/// What a thread needs to work for any site of one job: the plan and a resident student. Not thread-safe.
class Workbench {
 public:
  static Result<std::unique_ptr<Workbench>> create(const Plan& plan);
  const Plan& plan() const { return plan_; }
  models::FlatModel& student() { return student_; }
  const compression::UpdateCodec& codec() const { return codec_; }  ///< of the custom profile
  const compression::RingCodec* ring() const { return ring_ ? &*ring_ : nullptr; }  ///< null but in the secure profile
  /// A second student with these parameters, in evaluation mode, for the "global" distillation term.
  distill::Teacher reference(std::span<const float> parameters);

 private:
  Workbench(Plan plan, models::FlatModel student, compression::UpdateCodec codec, std::optional<compression::RingCodec> ring)
      : plan_(std::move(plan)), student_(std::move(student)), codec_(std::move(codec)), ring_(std::move(ring)) {}
  Plan plan_;
  models::FlatModel student_;
  compression::UpdateCodec codec_;
  std::optional<compression::RingCodec> ring_;
  std::shared_ptr<models::FlatModel> reference_;
};

/// What a site keeps between rounds. Used by one thread at a time.
struct SiteState {
  std::string name;
  const data::Splits* data = nullptr;
  compression::ErrorFeedback feedback;  ///< as of the last update that counted
  compression::ErrorFeedback pending;   ///< as of the update on its way
  transport::Blob initial;              ///< the first student received: where local-only training starts
  std::shared_ptr<models::FlatModel> teacher;
  std::shared_ptr<PrivacyGuard> guard;  ///< null: the job has no differential privacy
  std::optional<distill::Teacher> resident_teacher() const {
    return teacher ? std::optional(distill::Teacher::wrap(teacher)) : std::nullopt;
  }
  void settle(bool accepted) {
    if (accepted) feedback = std::move(pending);
  }
};

/// Reads a plan as a node does: every key and range, the architecture, the codecs, the site's own data.
Result<Plan> read_plan(const std::string& text, const data::Splits& data);

/// Trains the received student on the site's images and codes the difference. Depends on (plan.seed, site name,
/// round, model, images) alone. A failure comes back in Trained::why.
/// In the secure profile the coded update is words modulo 2^r and totals modulo 2^64 (compression::RingUpdate)
/// until the last line of train_round packs them: noise (SiteState::guard) and masks go in between.
Trained local_round(Workbench& bench, SiteState& site, const Train& task);

std::span<const float> floats_of(const Bytes& blob);

}  // namespace preceptor::node
