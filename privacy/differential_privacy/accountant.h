#pragma once
#include <functional>
#include <string>
#include <vector>

#include "common/result.h"
#include "privacy/differential_privacy/pld.h"
#include "privacy/differential_privacy/rdp.h"

namespace preceptor::privacy {

enum class Noise {
  kGaussian,          ///< continuous, central: DP-SGD's
  kDiscreteGaussian,  ///< integers, one share or a sum of shares
  kSkellam,           ///< integers, a sum of shares
};

/// What was released of one data set: the same noisy sum, `steps` times on fresh Poisson samples.
struct Mechanism {
  Noise noise = Noise::kGaussian;
  double sampling_rate = 1;     ///< (0, 1]
  double noise_multiplier = 1;  ///< kGaussian: deviation / clip
  IntegerNoise integers{};      ///< the others
  std::uint64_t steps = 1;
  bool same_step(const Mechanism& other) const;  ///< all but `steps` is equal
};
/// Every number finite and in its range, or kCorrupt; for mechanisms from a file or a peer.
Result<void> check(const Mechanism& mechanism);

/// ε(α) of all its steps at default_orders().
std::vector<double> rdp_curve(const Mechanism& mechanism);

struct Spent {
  double epsilon = 0;
  std::string accountant = "none";  ///< whose bound this is: "rdp", "pld"
};
/// An upper bound on ε at `delta` of all that was released, the smallest that an accountant here
/// gives: the loss distribution where only Gaussian noise is in it (0.2 s a kind), the Rényi curves
/// else.
Spent epsilon_spent(const std::vector<Mechanism>& released, double delta);
/// By the Rényi curves alone: 1 ms, some 10 % more.
RdpEpsilon rdp_spent(const std::vector<Mechanism>& released, double delta);

/// δ(ε) of one Gaussian step with sensitivity 1, exactly (Balle and Wang 2018, arXiv:1805.06530,
/// thm 8).
double gaussian_delta(double noise_multiplier, double epsilon);
/// The least noise multiplier of one Gaussian step that is (ε, δ)-private: the analytic mechanism.
double gaussian_multiplier(double epsilon, double delta);

/// The least σ in [low, high] with epsilon_of(σ) ≤ target, to a relative `tolerance` and on the
/// private side, by bisection; epsilon_of falls. kInvalid when even `high` spends more.
Result<double> calibrate(double target, const std::function<double(double)>& epsilon_of,
                         double low = 1e-2, double high = 1e6, double tolerance = 1e-4);
/// The least noise multiplier with which `steps` steps at this sampling rate spend at most epsilon.
Result<double> calibrate_gaussian(double epsilon, double delta, double sampling_rate,
                                  std::uint64_t steps);

}  // namespace preceptor::privacy
