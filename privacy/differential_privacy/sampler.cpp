#include "privacy/differential_privacy/sampler.h"

#include <bit>
#include <cmath>

namespace preceptor::privacy {
namespace {

using Wide = unsigned __int128;

/// True with probability n/d, n < d < 2^126.
bool bernoulli(RandomSource& source, Wide n, Wide d) {
  if (d >> 64 == 0) return uniform_below(source, std::uint64_t(d)) < std::uint64_t(n);
  // Bits of a uniform number against bits of n/d. The first 64 are almost always told apart by a
  // quotient in floating point, whose error is known to be far below the margin.
  const std::uint64_t word = source.word();
  const double apart = std::ldexp(double(word), -64) - double(n) / double(d);
  if (apart > 1e-12) return false;
  if (apart < -1e-12) return true;
  for (std::uint64_t bits = word;; bits = source.word())
    for (int i = 63; i >= 0; --i) {
      n <<= 1;
      const bool quotient = n >= d;
      if (quotient) n -= d;
      const bool drawn = bits >> i & 1;
      if (drawn != quotient) return quotient;
    }
}

/// True with probability e^-1: algorithm 1 with γ = 1.
bool bernoulli_exp_one(RandomSource& source) {
  for (std::uint64_t k = 2;; ++k)
    if (uniform_below(source, k) != 0) return k % 2 == 1;
}

/// True with probability e^-(n/d).
bool bernoulli_exp_wide(RandomSource& source, Wide n, Wide d) {
  for (; n >= d; n -= d)
    if (!bernoulli_exp_one(source)) return false;
  // P(k tries succeed) = γ^k / k!; a try is γ and, independently, 1/k.
  for (std::uint64_t k = 1;; ++k)
    if (!bernoulli(source, n, d) || (k > 1 && uniform_below(source, k) != 0)) return k % 2 == 1;
}

class DiscreteGaussian final : public IntegerSampler {
 public:
  explicit DiscreteGaussian(Fraction variance) : variance_(variance) {
    const auto whole = variance.numerator / variance.denominator;
    auto root = std::uint64_t(std::sqrt(double(whole)));
    while (root * root > whole) --root;
    while ((root + 1) * (root + 1) <= whole) ++root;
    scale_ = root + 1;
    offset_scale_ = variance.denominator * scale_;
    divisor_ = 2 * Wide(variance.numerator) * variance.denominator * scale_ * scale_;
  }
  double variance() const override { return variance_.value(); }

 private:
  std::int64_t draw(RandomSource& source) const override {
    for (;;) {
      const auto y = discrete_laplace(source, scale_);
      // Accepted by exp(-(|y| - σ²/t)² / 2σ²), as a fraction. 8000 deviations out the square would
      // overflow; that such a draw is thrown away changes the distribution by less than e^-10^7.
      const Wide far = Wide(std::uint64_t(std::abs(y))) * offset_scale_;
      const Wide apart = far > variance_.numerator ? far - variance_.numerator : variance_.numerator - far;
      if (apart >> 63 == 0 && bernoulli_exp_wide(source, apart * apart, divisor_)) return y;
    }
  }

  Fraction variance_;
  std::uint64_t scale_;         ///< t = floor(σ) + 1
  std::uint64_t offset_scale_;  ///< denominator · t
  Wide divisor_;                ///< 2 · numerator · denominator · t²
};

class Skellam final : public IntegerSampler {
 public:
  explicit Skellam(Fraction variance) : variance_(variance) {
    halves_ = 2 * variance.numerator / variance.denominator;
    rest_ = 2 * variance.numerator % variance.denominator;
  }
  double variance() const override { return variance_.value(); }

 private:
  /// Poisson of mean n/2d ≤ 1/2: a geometric k (P = 2^-(k+1)) accepted by (n/d)^k / k!.
  static std::uint64_t poisson(RandomSource& source, std::uint64_t n, std::uint64_t d) {
    for (;;) {
      const auto k = std::uint64_t(std::countr_one(source.word()));
      bool accepted = k < 64;  // e^-200 of the mass is beyond
      for (std::uint64_t i = 2; accepted && i <= k; ++i) accepted = uniform_below(source, i) == 0;
      for (std::uint64_t i = 0; accepted && n < d && i < k; ++i) accepted = uniform_below(source, d) < n;
      if (accepted) return k;
    }
  }
  std::int64_t draw(RandomSource& source) const override {
    std::uint64_t steps = rest_ > 0 ? poisson(source, rest_, variance_.denominator) : 0;
    for (std::uint64_t i = 0; i < halves_; ++i) steps += poisson(source, 1, 1);
    std::int64_t up = 0;
    for (auto left = steps; left > 0; left -= std::min<std::uint64_t>(left, 64))
      up += std::popcount(left < 64 ? source.word() >> (64 - left) : source.word());
    return 2 * up - std::int64_t(steps);
  }

  Fraction variance_;
  std::uint64_t halves_, rest_;
};

}  // namespace

std::uint64_t uniform_below(RandomSource& source, std::uint64_t bound) {  // Lemire 2019, arXiv:1805.10941
  auto product = Wide(source.word()) * bound;
  if (std::uint64_t(product) < bound) {
    const std::uint64_t threshold = -bound % bound;
    while (std::uint64_t(product) < threshold) product = Wide(source.word()) * bound;
  }
  return std::uint64_t(product >> 64);
}

bool bernoulli_exp(RandomSource& source, std::uint64_t numerator, std::uint64_t denominator) {
  return bernoulli_exp_wide(source, numerator, denominator);
}

std::int64_t discrete_laplace(RandomSource& source, std::uint64_t scale) {
  for (;;) {
    const auto u = uniform_below(source, scale);
    if (!bernoulli_exp(source, u, scale)) continue;
    std::uint64_t v = 0;
    while (bernoulli_exp_one(source)) ++v;
    const auto y = std::int64_t(u + scale * v);
    const bool negative = source.word() >> 63;
    if (negative && y == 0) continue;
    return negative ? -y : y;
  }
}

Result<void> IntegerSampler::sample(RandomSource& source, std::span<std::int64_t> out) const {
  try {
    for (auto& value : out) value = draw(source);
  } catch (const RandomSource::Exhausted& exhausted) {
    return std::unexpected(exhausted.error);
  }
  return {};
}

Result<Fraction> fraction_at_least(double value) {
  if (!(value >= std::ldexp(1, -20) && value <= std::ldexp(1, 48)))
    return fail(Code::kInvalid, "noise of variance {} is outside 2^-20 … 2^48: another number of bits or another clip norm", value);
  Fraction fraction{1, 1u << 20};
  while (std::ceil(value * double(fraction.denominator)) >= std::ldexp(1, 49)) fraction.denominator /= 2;
  fraction.numerator = std::uint64_t(std::ceil(value * double(fraction.denominator)));
  return fraction;
}

Result<std::unique_ptr<IntegerSampler>> discrete_gaussian(Fraction variance) {
  if (variance.numerator == 0 || variance.denominator == 0 || variance.numerator >> 50 || variance.denominator >> 21)
    return fail(Code::kInvalid, "a discrete Gaussian of variance {}/{}: the numerator is below 2^50, the denominator at most 2^20",
                variance.numerator, variance.denominator);
  return std::make_unique<DiscreteGaussian>(variance);
}

Result<std::unique_ptr<IntegerSampler>> skellam(Fraction variance) {
  if (variance.numerator == 0 || variance.denominator == 0 || variance.denominator >> 21 ||
      variance.numerator / variance.denominator >= std::uint64_t(kSkellamVariance))
    return fail(Code::kInvalid, "Skellam noise of variance {}/{}: below {} only; discrete Gaussian noise serves from there on",
                variance.numerator, variance.denominator, kSkellamVariance);
  return std::make_unique<Skellam>(variance);
}

}  // namespace preceptor::privacy
