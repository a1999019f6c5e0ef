#pragma once
#include <filesystem>

#include "node/options.h"
#include "plan/plan.h"
#include "privacy/differential_privacy/ledger.h"

namespace preceptor::data {
struct Dataset;
}

namespace preceptor::node {

/// Where a site keeps what it spent, and whether its noise is worth anything.
struct PrivacyPlace {
  std::filesystem::path ledgers;  ///< folder of this site's ledgers
  bool simulated = false;         ///< noise from the plan's seed, reproducible: protects nobody, and nobody is there to be protected
};

/// Differential privacy of one job at one site: what stands between its images and its update. Made when the plan is
/// weighed, which is when everything that could be refused is. Used by one thread at a time.
class PrivacyGuard {
 public:
  /// Null when the plan has no privacy and the site's limits do not ask for it. Error: kRefused, naming the rule; of the ledger.
  static Result<std::unique_ptr<PrivacyGuard>> create(const Plan& plan, const ParameterSpace& student, const data::Dataset& train,
                                                      const std::string& site, const privacy::PrivacyLimits& limits, const PrivacyPlace& place);

  /// Durable before it returns, so it comes before anything of the round leaves. kRefused: the budget is spent.
  Result<void> debit(std::uint32_t round);
  /// The plan's training; record-local: by DP-SGD, with this site's batch.
  const training::TrainingOptions& training() const { return training_; }
  const privacy::DifferentialPrivacyOptions& options() const { return options_; }
  bool one_step() const { return options_.mode == "record-distributed"; }  ///< a round is one step, whose noise is in the words
  bool simulated() const { return place_.simulated; }
  /// Of a distributed mode, to the words before they are masked; else nothing. `stream`: of simulated noise.
  Result<void> add_noise(std::span<std::uint32_t> words, int ring_bits, RandomStream stream) const;

  const privacy::Mechanism& round() const { return round_; }  ///< what the ledger is debited with
  const privacy::LedgerState& ledger() const { return ledger_->state(); }

 private:
  PrivacyGuard(const Plan& plan, PrivacyPlace place)
      : job_(plan.job), options_(plan.privacy.differential_privacy), training_(plan.training), place_(std::move(place)) {}
  Result<void> set_local(const Plan& plan, std::size_t images);
  Result<void> set_distributed(const Plan& plan, const ParameterSpace& student);

  std::string job_;
  privacy::DifferentialPrivacyOptions options_;
  training::TrainingOptions training_;
  PrivacyPlace place_;
  privacy::Budget budget_;
  privacy::Mechanism round_;
  std::optional<privacy::RingNoise> noise_;
  std::optional<privacy::Ledger> ledger_;
};

}  // namespace preceptor::node
