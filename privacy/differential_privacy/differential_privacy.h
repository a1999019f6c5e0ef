#pragma once
#include "common/options.h"
#include "privacy/differential_privacy/accountant.h"

namespace preceptor::privacy {

/// Differential privacy of a whole job, as the plan says it and a node checks it. Modes:
/// - record-local: every step of a node's training clips each image's gradient and adds noise, as
///   DP-SGD does. Each hospital protects its images by itself, also from the others.
/// - record-distributed: a round is one step; each node adds a share of integer noise to its sum of
///   clipped gradients, and only the sum of all nodes has the whole noise: much less of it.
/// - hospital-distributed: the same noise on whole updates: the hospital is what is protected.
struct DifferentialPrivacyOptions {
  std::string mode = "off";
  double epsilon = 3;  ///< of the whole job at `delta`; the noise is derived from it
  double delta = 1e-5;
  double clip = 1;  ///< L2 norm: record modes: of an image's gradient; hospital: of an update
  double noise_multiplier = 0;  ///< deviation over sensitivity; 0: derived from epsilon
  double sampling_rate = 0.05;              ///< record modes: chance of an image to be in a step
  std::string noise = "discrete-gaussian";  ///< distributed modes; skellam: for small variances
  int honest = 1;  ///< distributed modes: nodes, the own included, that are sure to add their share
  double batch = 64;  ///< record-distributed: images that each node's sum is divided by
  template <class V>
  void visit(V& v) {
    v("mode", mode, OneOf{"off", "record-local", "record-distributed", "hospital-distributed"});
    v("epsilon", epsilon, Range{1e-3, 1e3});
    v("delta", delta, Range{1e-9, 0.1});
    v("clip", clip, Range{1e-6, 1e6});
    v("noise_multiplier", noise_multiplier, Range{0, 1e4});
    v("sampling_rate", sampling_rate, Range{1e-6, 1});
    v("noise", noise, OneOf{"discrete-gaussian", "skellam"});
    v("honest", honest, Range{1, 1e6});
    v("batch", batch, Range{1, 1e9});
  }
  bool on() const { return mode != "off"; }
  bool distributed() const { return mode.ends_with("-distributed"); }
  bool of_records() const { return mode.starts_with("record-"); }
};

/// One round of record-local training as everybody may know it: epochs · round(1/q) steps, rate q.
Mechanism local_round(const DifferentialPrivacyOptions& options, int epochs);
/// One round of a distributed mode with noise_multiplier σ/l2: what integer noise comes to when it
/// is wide (deviation of a share above 2, say). For deriving noise; what is spent is accounted for
/// with the words that are noised.
Mechanism distributed_round(const DifferentialPrivacyOptions& options);
/// One round, of whatever mode is on.
Mechanism nominal_round(const DifferentialPrivacyOptions& options, int epochs);

/// Fills in noise_multiplier such that `rounds` rounds spend at most epsilon, or kInvalid.
Result<void> derive_noise(DifferentialPrivacyOptions& options, int rounds, int epochs);

/// Whether `rounds` rounds of `actual` spend no more ε at delta than as many of `promised`.
bool spends_no_more(Mechanism actual, Mechanism promised, int rounds, double delta);

/// What a hospital allows, whatever a plan asks.
struct PrivacyLimits {
  double epsilon_max = 10;  ///< of one data set, over all jobs
  double delta_max = 0;     ///< at most 1 / (10 · records) in any case; 0: that
  int honest_max = 1;       ///< nodes, the own included, that this one counts on to add their noise
  bool required = false;    ///< refuse plans without differential privacy
  template <class V>
  void visit(V& v) {
    v("epsilon_max", epsilon_max, Range{0, 1e6});
    v("delta_max", delta_max, Range{0, 0.1});
    v("honest_max", honest_max, Range{1, 1e6});
    v("required", required);
  }
  double delta(std::uint64_t records) const;  ///< that the ledger is kept at
};
/// The plan's options against the limits of a site with so many records. kRefused, naming the rule.
Result<void> check_limits(const DifferentialPrivacyOptions& options, const PrivacyLimits& limits,
                          std::uint64_t records);

}  // namespace preceptor::privacy
