#include "privacy/differential_privacy/accountant.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "privacy/differential_privacy/special.h"

namespace preceptor::privacy {
namespace {

/// A loss distribution of more kinds of steps than this takes too long; the curves answer then.
constexpr std::size_t kMostKinds = 8;
/// Beyond this the grid is coarse and nobody asks for digits.
constexpr double kLargeEpsilon = 100;

std::vector<Mechanism> merged(const std::vector<Mechanism>& released) {
  std::vector<Mechanism> kinds;
  for (const auto& one : released) {
    const auto same = std::ranges::find_if(kinds, [&](const Mechanism& kind) { return kind.same_step(one); });
    if (same == kinds.end()) kinds.push_back(one);
    else same->steps += one.steps;
  }
  return kinds;
}

RdpEpsilon rdp_of(const std::vector<Mechanism>& kinds, double delta) {
  std::vector<double> sum(default_orders().size(), 0.0);
  for (const auto& kind : kinds) {
    const auto curve = rdp_curve(kind);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += curve[i];
  }
  return rdp_to_epsilon(default_orders(), sum, delta);
}

}  // namespace

bool Mechanism::same_step(const Mechanism& other) const {
  const auto& a = integers;
  const auto& b = other.integers;
  if (noise != other.noise || sampling_rate != other.sampling_rate) return false;
  if (noise == Noise::kGaussian) return noise_multiplier == other.noise_multiplier;
  return a.deviation == b.deviation && a.shares == b.shares && a.l2 == b.l2 && a.l1 == b.l1 && a.dimension == b.dimension;
}

Result<void> check(const Mechanism& m) {
  const auto within = [](double value, double low, double high) { return value >= low && value <= high; };
  if (!within(m.sampling_rate, 1e-9, 1)) return fail(Code::kCorrupt, "a sampling rate of {}, not in (0, 1]", m.sampling_rate);
  if (m.steps < 1 || m.steps > 1'000'000'000) return fail(Code::kCorrupt, "{} steps, not 1 to 1e9", m.steps);
  if (m.noise == Noise::kGaussian) {
    if (!within(m.noise_multiplier, 1e-3, 1e9)) return fail(Code::kCorrupt, "a noise multiplier of {}, not 0.001 to 1e9", m.noise_multiplier);
    return {};
  }
  const auto& n = m.integers;
  if (!within(n.deviation, 1e-3, 1e12) || n.shares < 1 || n.shares > 1'000'000 || !within(n.l2, 1e-12, 1e18) ||
      !within(n.l1, 1e-12, 1e30) || !within(n.dimension, 1, 1e15))
    return fail(Code::kCorrupt, "integer noise of deviation {}, {} shares, sensitivity {} (L2) and {} (L1), {} elements: out of range",
                n.deviation, n.shares, n.l2, n.l1, n.dimension);
  return {};
}

std::vector<double> rdp_curve(const Mechanism& m) {
  std::vector<double> curve;
  const auto plain = [&](double order) {
    return m.noise == Noise::kSkellam ? skellam_rdp(m.integers, order) : discrete_gaussian_rdp(m.integers, order);
  };
  for (const double order : default_orders())
    curve.push_back(double(m.steps) * (m.noise == Noise::kGaussian
                                           ? sampled_gaussian_rdp(m.sampling_rate, m.noise_multiplier, order)
                                           : amplified_rdp(m.sampling_rate, plain, order)));
  return curve;
}

RdpEpsilon rdp_spent(const std::vector<Mechanism>& released, double delta) { return rdp_of(merged(released), delta); }

Spent epsilon_spent(const std::vector<Mechanism>& released, double delta) {
  if (released.empty()) return {};
  const auto kinds = merged(released);
  const Spent rdp{rdp_of(kinds, delta).epsilon, "rdp"};
  std::vector<SampledGaussian> parts;
  for (const auto& kind : kinds)
    if (kind.noise == Noise::kGaussian) parts.push_back({kind.sampling_rate, kind.noise_multiplier, kind.steps});
  if (parts.size() != kinds.size() || parts.size() > kMostKinds || rdp.epsilon > kLargeEpsilon || delta < PrivacyLoss::kSmallestDelta)
    return rdp;
  const Spent pld{PrivacyLoss(parts).epsilon(delta), "pld"};
  return pld.epsilon < rdp.epsilon ? pld : rdp;
}

double gaussian_delta(double sigma, double epsilon) {
  const double a = 1 / (2 * sigma), b = epsilon * sigma;
  // e^ε Φ(-a - b), in logarithms: the first factor may overflow, the second underflow.
  const double second = epsilon + log_erfc((a + b) / std::numbers::sqrt2) - std::numbers::ln2;
  return std::max(0.0, normal_cdf(a - b) - std::exp(second));
}

double gaussian_multiplier(double epsilon, double delta) {
  double low = 1e-6, high = 1e6;
  while (high / low > 1 + 1e-13) {
    const double mid = std::sqrt(low * high);
    (gaussian_delta(mid, epsilon) > delta ? low : high) = mid;
  }
  return high;
}

Result<double> calibrate(double target, const std::function<double(double)>& epsilon_of, double low, double high, double tolerance) {
  if (!(epsilon_of(high) <= target))
    return fail(Code::kInvalid, "even {} times the clip norm of noise spends more than ε = {}: fewer rounds, a smaller sampling rate or a larger ε",
                high, target);
  while (high / low > 1 + tolerance) {
    const double mid = std::sqrt(low * high);
    (epsilon_of(mid) <= target ? high : low) = mid;
  }
  return high;
}

Result<double> calibrate_gaussian(double epsilon, double delta, double sampling_rate, std::uint64_t steps) {
  const auto released = [&](double sigma) { return std::vector<Mechanism>{{Noise::kGaussian, sampling_rate, sigma, {}, steps}}; };
  const double by_curves = TRY(calibrate(epsilon, [&](double sigma) { return rdp_spent(released(sigma), delta).epsilon; }));
  // The tighter bound wants the slow accountant; the curves' answer is never too small.
  return calibrate(epsilon, [&](double sigma) { return epsilon_spent(released(sigma), delta).epsilon; }, by_curves / 2, by_curves);
}

}  // namespace preceptor::privacy
