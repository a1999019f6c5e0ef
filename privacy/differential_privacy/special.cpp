#include "privacy/differential_privacy/special.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace preceptor::privacy {

namespace {
constexpr double kNothing = -std::numeric_limits<double>::infinity();
}

double log_erfc(double x) {
  if (x < 20) return std::log(std::erfc(x));
  // Abramowitz and Stegun 7.1.23; at 20 the terms left out are below 1e-11 of erfc.
  const double r = 1 / (x * x);
  return -x * x - std::log(x * std::sqrt(std::numbers::pi)) + std::log1p(r * (-0.5 + r * (0.75 - r * 1.875)));
}

double log_add(double a, double b) {
  if (a < b) std::swap(a, b);
  return b == kNothing ? a : a + std::log1p(std::exp(b - a));
}

double log_sub(double a, double b) {
  if (b >= a) return kNothing;
  return b == kNothing ? a : a + std::log1p(-std::exp(b - a));
}

double log_expm1(double x) { return x > 30 ? x + std::log1p(-std::exp(-x)) : std::log(std::expm1(x)); }

double log_binomial(double n, double k) { return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1); }

double normal_cdf(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

}  // namespace preceptor::privacy
