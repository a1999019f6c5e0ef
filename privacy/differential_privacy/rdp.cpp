#include "privacy/differential_privacy/rdp.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <stdexcept>

#include "privacy/differential_privacy/special.h"

namespace preceptor::privacy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void demand(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

/// log E[((1-q) + q r)^α] for a whole α, r the likelihood ratio: one plus a sum of positive terms, so
/// that nothing cancels where the loss is tiny.
double log_moment_whole(double q, double sigma, double order) {
  double sum = -kInfinity;
  for (double k = 2; k <= order; ++k)
    sum = log_add(sum, log_binomial(order, k) + k * std::log(q) + (order - k) * std::log1p(-q) +
                           log_expm1((k * k - k) / (2 * sigma * sigma)));
  return log_add(0, sum);
}

/// The same for any α: two binomial series, left and right of the point z0 where the two terms of the
/// mixture are equal. nullopt-like: infinity where the series is too slow to be summed.
double log_moment_fraction(double q, double sigma, double order) {
  const double z0 = sigma * sigma * std::log(1 / q - 1) + 0.5;
  const double width = std::numbers::sqrt2 * sigma, variance = 2 * sigma * sigma;
  double plus = -kInfinity, minus = -kInfinity, log_coefficient = 0;
  bool positive = true;
  for (int i = 0; i < 200'000; ++i) {
    if (i > 0) {
      const double factor = order - i + 1;
      log_coefficient += std::log(std::abs(factor)) - std::log(double(i));
      if (factor < 0) positive = !positive;
    }
    const double j = order - i;
    const double left = log_coefficient + i * std::log(q) + j * std::log1p(-q) + (double(i) * i - i) / variance +
                        log_erfc((i - z0) / width) - std::numbers::ln2;
    const double right = log_coefficient + j * std::log(q) + i * std::log1p(-q) + (j * j - j) / variance +
                         log_erfc((z0 - j) / width) - std::numbers::ln2;
    auto& side = positive ? plus : minus;
    side = log_add(side, log_add(left, right));
    // The moment is at least 1, and beyond the order the terms fall.
    if (i > order && std::max(left, right) < -36) return log_sub(plus, minus);
  }
  return kInfinity;
}

}  // namespace

const std::vector<double>& default_orders() {
  static const auto kOrders = [] {
    std::vector<double> orders;
    for (int tenths = 11; tenths <= 109; ++tenths) orders.push_back(tenths / 10.0);
    for (int whole = 12; whole <= 63; ++whole) orders.push_back(whole);
    return orders;
  }();
  return kOrders;
}

double sampled_gaussian_rdp(double q, double sigma, double order) {
  demand(q > 0 && q <= 1, "the sampling rate is in (0, 1]");
  demand(sigma > 0 && order > 1, "the noise multiplier is above 0, an order above 1");
  if (q == 1) return order / (2 * sigma * sigma);
  double moment = order == std::floor(order) ? log_moment_whole(q, sigma, order) : log_moment_fraction(q, sigma, order);
  if (moment == kInfinity) {  // Rényi divergence does not fall with the order
    const double next = std::ceil(order);
    return log_moment_whole(q, sigma, next) / (next - 1);
  }
  return std::max(0.0, moment) / (order - 1);
}

double discrete_gaussian_rdp(const IntegerNoise& noise, double order) {
  demand(noise.deviation > 0 && noise.shares > 0 && order > 1, "a deviation above 0, a share and an order above 1");
  const double total = noise.deviation * std::sqrt(double(noise.shares));
  const double l1 = noise.l1 / total, l2 = noise.l2 / total, d = noise.dimension;
  // How far a sum of discrete Gaussians is from a discrete Gaussian.
  double tau = 0;
  for (double k = 1; k < noise.shares; ++k)
    tau += 10 * std::exp(-2 * std::pow(std::numbers::pi * noise.deviation, 2) * k / (k + 1));
  const double a = order / 2 * l2 * l2 + tau * d;
  const double b = order / 2 * (l2 * l2 + 2 * l1 * tau + tau * tau * d);
  const double c = order / 2 * std::pow(l2 + std::sqrt(d) * tau, 2);
  return std::min({a, b, c});
}

double skellam_rdp(const IntegerNoise& noise, double order) {
  demand(noise.deviation > 0 && noise.shares > 0 && order > 1, "a deviation above 0, a share and an order above 1");
  const double whole = std::ceil(order), mu = noise.deviation * noise.deviation * noise.shares;
  const double l2 = noise.l2 * noise.l2;
  return whole * l2 / (2 * mu) +
         std::min(((2 * whole - 1) * l2 + 6 * noise.l1) / (4 * mu * mu), 3 * noise.l1 / (2 * mu));
}

double rounded_l2_bound(double l2, double dimension, double beta) {
  demand(l2 > 0 && dimension >= 1 && beta > 0 && beta < 1, "a norm above 0, a dimension and beta in (0, 1)");
  const double root = std::sqrt(dimension);
  return std::min(l2 + root, std::sqrt(l2 * l2 + dimension / 4 + std::sqrt(2 * std::log(1 / beta)) * (l2 + root / 2)));
}

double rounded_l1_bound(double rounded_l2, double dimension) {
  return rounded_l2 * std::min(std::sqrt(dimension), rounded_l2);  // |x| ≤ x² of integers
}

double amplified_rdp(double q, const std::function<double(double)>& rdp, double order) {
  demand(q > 0 && q <= 1 && order > 1, "the sampling rate is in (0, 1], an order above 1");
  if (q == 1) return rdp(order);
  const double whole = std::ceil(order), stay = std::log1p(-q);
  double sum = (whole - 1) * stay + std::log1p(q * (whole - 1));
  for (double k = 2; k <= whole; ++k)
    sum = log_add(sum, (k > 2 ? std::log(3.0) : 0.0) + log_binomial(whole, k) + (whole - k) * stay + k * std::log(q) +
                           (k - 1) * rdp(k));
  return std::min(rdp(order), std::max(0.0, sum) / (whole - 1));
}

RdpEpsilon rdp_to_epsilon(std::span<const double> orders, std::span<const double> curve, double delta) {
  demand(orders.size() == curve.size() && !orders.empty() && delta > 0 && delta < 1, "as many values as orders, delta in (0, 1)");
  RdpEpsilon best{kInfinity, 0};
  for (std::size_t i = 0; i < orders.size(); ++i) {
    const double a = orders[i];
    const double epsilon = std::max(0.0, curve[i] + std::log1p(-1 / a) - (std::log(delta) + std::log(a)) / (a - 1));
    if (epsilon < best.epsilon) best = {epsilon, a};
  }
  return best;
}

}  // namespace preceptor::privacy
