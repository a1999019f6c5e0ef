#pragma once
#include <cstdint>
#include <memory>
#include <span>

#include "privacy/differential_privacy/random_source.h"

namespace preceptor::privacy {

/// numerator / denominator, both above 0.
struct Fraction {
  std::uint64_t numerator = 1;
  std::uint64_t denominator = 1;
  double value() const { return double(numerator) / double(denominator); }
};
/// The smallest fraction of the samplers' precision that is not below `value`: noise is never too
/// small. kInvalid outside 2^-20 … 2^48.
Result<Fraction> fraction_at_least(double value);

/// Noise of whole numbers around 0, drawn exactly: integers and random bits only, no floating point
/// decides, so the probabilities are the distribution's own to the last digit (floats leak: Mironov
/// 2012, doi:10.1145/2382196.2382264). The time of a draw depends on the draw.
class IntegerSampler {
 public:
  virtual ~IntegerSampler() = default;
  virtual double variance() const = 0;
  /// Independent draws. kUnavailable when the source has no randomness; `out` is then worthless.
  Result<void> sample(RandomSource& source, std::span<std::int64_t> out) const;

 private:
  virtual std::int64_t draw(RandomSource& source) const = 0;
};

/// P(x) ∝ exp(-x² / 2σ²) (Canonne, Kamath and Steinke 2020, arXiv:2004.00010, algorithms 1 to 3).
/// variance = σ²: below 2^48, numerator below 2^50. Its own variance is at most σ², and equal to 8
/// digits from σ = 1 on.
Result<std::unique_ptr<IntegerSampler>> discrete_gaussian(Fraction variance);
/// Difference of two Poisson variables of mean variance/2. For small variances, where sums of
/// discrete Gaussians are no discrete Gaussian: time grows with the variance, hence at most
/// kSkellamVariance. A Poisson(variance) number of fair ±1 steps; the number is a sum of
/// Poisson(1/2) and a rest below 1/2, each by rejection from a geometric variable (acceptance above
/// 1/2).
Result<std::unique_ptr<IntegerSampler>> skellam(Fraction variance);
inline constexpr double kSkellamVariance = 64;

/// The parts, public for their tests. All exact.
std::uint64_t uniform_below(RandomSource& source, std::uint64_t bound);  ///< [0, bound), bound > 0
bool bernoulli_exp(RandomSource& source, std::uint64_t numerator,
                   std::uint64_t denominator);  ///< true by e^-(n/d)
std::int64_t discrete_laplace(RandomSource& source,
                              std::uint64_t scale);  ///< P(x) ∝ e^(-|x|/scale)

}  // namespace preceptor::privacy
