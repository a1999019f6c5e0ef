#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "node/masking.h"
#include "node/model_source.h"
#include "transport/transfer.h"

namespace preceptor::node {

/// What happens to a session.
struct Connected {};
struct Disconnected {};
struct Heard {
  transport::Message message;
};
struct PlanReady {             ///< answer to ReadPlan
  bool accepted = false;
  std::string why;             ///< when not
  std::string teacher_sha256;  ///< hex; "": none is wanted (the plan has none, or the budget forbids it)
  std::uint64_t teacher_bytes = 0;
  std::optional<privacy::SessionContext> masking{};  ///< of a plan whose updates are masked
  struct PublishedSums {
    std::string initial;       ///< SHA-256, hexadecimal, of the model that round 1 begins with
    std::uint64_t bytes = 0;   ///< of one
    std::uint32_t rounds = 0;  ///< of the plan: no model is further than so many sums from the first
  };
  std::optional<PublishedSums> sums{};  ///< of a plan whose models the site makes itself
};
struct Trained {  ///< answer to Train
  std::uint32_t round = 0;
  Bytes update;   ///< empty: training failed, `why` says why
  double train_loss = 0;
  std::string why;
  std::vector<transport::StageFidelity> fidelity{};  ///< of each stage of the codec
  bool totals_only = false;  ///< weight, loss and fidelity are inside the update, where only their sums can be read: the offer says none
};
struct Judged {  ///< answer to Judge
  transport::SiteReport report;
  std::string why;  ///< when it failed
};
using Event = std::variant<Connected, Disconnected, Heard, PlanReady, Trained, Patched, Judged>;

/// What it wants done. ReadPlan, Train and Judge are long: the driver runs them elsewhere, one at a time,
/// and answers with an event. Patch is answered at once.
struct Send {
  transport::Message message;
};
struct ReadPlan {
  std::string plan;
};
struct UseTeacher {
  Bytes parameters;
};
struct Train {
  std::uint32_t round = 0;
  transport::Blob model;
  Digest architecture{};
};
struct Settle {  ///< the last update is in the sum (its error feedback counts) or lost (it does not)
  std::uint32_t round = 0;
  bool accepted = false;
  std::string why;
};
struct Judge {
  transport::Blob model;
};
struct Stop {
  bool completed = false;
  std::string reason;
};
using Effect = std::variant<Send, ReadPlan, UseTeacher, Train, Patch, Settle, Judge, Stop>;
using Effects = std::vector<Effect>;

/// A site's side of the job as a pure state machine: hello → plan → ready → (fetch, train, offer, upload) × rounds →
/// judge → report. Survives broken connections: it says hello again, fetches on where it stopped, and offers an
/// update that is still waiting. No socket, thread or clock.
class Session {
 public:
  explicit Session(std::uint64_t train_samples) : Session(train_samples, {}, {}) {}
  Session(std::uint64_t train_samples, MaskingPlace place, const privacy::SecureAggregationLimits& limits)
      : train_samples_(train_samples), masking_(std::move(place), limits) {}
  Effects step(Event event, Time now);
  std::string status() const;

 private:
  enum class Phase { kIdle, kReadingPlan, kReady, kTraining, kMasking, kOffering, kJudging, kReporting, kStopped };
  void hear(transport::Welcome& welcome);
  void hear(transport::RoundStart& start);
  void hear(transport::Fetch& fetch);
  void hear(transport::Chunk& chunk);
  void hear(transport::Accepted& accepted);
  void hear(transport::Refused& refused);
  void hear(transport::Finish& finish);
  void hear(transport::Goodbye& goodbye);
  void hear(transport::SecureAggregation& message);
  template <class Other>
  void hear(Other& message);

  void plan_ready(PlanReady& answer);
  transport::Ready ready() const;
  void trained(Trained& answer);
  void mask_if_ready();
  void offer_update(Bytes update);
  void settle(bool accepted, const std::string& why);
  void patched(Patched& answer);
  void fetch(const Digest& blob, std::uint64_t bytes);
  void go_on(Result<ModelSource::Next> next);
  void use_model();
  void keep_model() const;
  void ask();
  void arrived();
  void take_up_work();
  void offer();
  void stop(bool completed, const std::string& reason);
  /// Nothing while disconnected: the next Welcome takes up what is open.
  void send(transport::Message message) {
    if (connected_) effects_.push_back(Send{std::move(message)});
  }

  std::uint64_t train_samples_;
  Phase phase_ = Phase::kIdle;
  bool planned_ = false;
  bool connected_ = false;
  std::optional<transport::RoundStart> next_round_;  ///< told, not yet taken up
  std::optional<transport::Finish> finish_;
  ModelSource models_;
  std::optional<transport::BlobReceiver> receiver_;
  std::optional<Digest> teacher_;  ///< on its way
  std::optional<transport::RoundStart> round_;  ///< being trained or offered
  Masking masking_;
  std::optional<Trained> unmasked_;  ///< waits for the other sites' shares
  std::optional<transport::UpdateOffer> offer_;
  std::optional<transport::SiteReport> report_;
  transport::BlobShelf outbox_;
  Effects effects_;
};

}  // namespace preceptor::node
