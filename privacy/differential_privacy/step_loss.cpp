#include "privacy/differential_privacy/step_loss.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "privacy/differential_privacy/special.h"

namespace preceptor::privacy {
namespace {

/// Standard deviations outside which less than `tail` of a normal distribution lies.
double deviations(double tail) {
  double low = 0, high = 40;
  while (high - low > 1e-3) {
    const double mid = (low + high) / 2;
    (log_erfc(mid / std::sqrt(2.0)) - std::log(2.0) > std::log(tail) ? low : high) = mid;
  }
  return high;
}

}  // namespace

StepLoss::StepLoss(const SampledGaussian& part, bool removed, double tail)
    : q_(part.sampling_rate), sigma_(part.noise_multiplier), removed_(removed) {
  const double z = deviations(tail);
  low_ = (q_ == 1 && removed ? 1 : 0) - z * sigma_;
  high_ = (removed ? 1 : 0) + z * sigma_;
}

double StepLoss::loss(double x) const {
  const double t = (2 * x - 1) / (2 * sigma_ * sigma_);
  const double l = q_ == 1 ? t
                   : t > 0 ? t + std::log(q_ + (1 - q_) * std::exp(-t))
                           : std::log1p(q_ * std::expm1(t));
  return removed_ ? l : -l;
}
double StepLoss::least() const { return std::min(loss(low_), loss(high_)); }
double StepLoss::most() const { return std::max(loss(low_), loss(high_)); }

LossMasses StepLoss::on_grid(double step, double tail) const {
  LossMasses out;
  out.first = std::int64_t(std::floor(least() / step)) - 1;
  out.masses.assign(std::size_t(std::ceil(most() / step) - double(out.first)) + 3, 0.0);
  const int panels = int(std::ceil((high_ - low_) / (sigma_ / 32)));
  double a = low_, loss_a = loss(a);
  for (int p = 1; p <= panels; ++p) {
    const double b = low_ + (high_ - low_) * p / panels, loss_b = loss(b);
    split_panel(out, step, a, b, loss_a, loss_b);
    a = b;
    loss_a = loss_b;
  }
  double sum = 0;
  for (const double m : out.masses) sum += m;
  // What the quadrature is off by (1e-10) goes; the tails are infinite losses.
  out.infinite = 2 * tail;
  for (double& m : out.masses) m *= (1 - out.infinite) / sum;
  return out;
}

double StepLoss::density(double x) const {
  const auto bell = [&](double d) { return std::exp(-d * d / (2 * sigma_ * sigma_)); };
  return removed_ ? (1 - q_) * bell(x) + q_ * bell(x - 1) : bell(x);
}

/// x of a loss inside the panel.
double StepLoss::inverse(double l) const {
  const double e = removed_ ? l : -l;
  const double t = q_ == 1 ? e
                   : e > 0 ? e + std::log((1 - (1 - q_) * std::exp(-e)) / q_)
                           : std::log1p(std::expm1(e) / q_);
  return sigma_ * sigma_ * t + 0.5;
}

/// Cuts [a, b] where the loss crosses the grid, so that each piece's loss lies between two
/// points.
void StepLoss::split_panel(LossMasses& out, double step, double a, double b, double loss_a,
                           double loss_b) const {
  const double lower = std::min(loss_a, loss_b), upper = std::max(loss_a, loss_b);
  std::int64_t j = std::int64_t(std::floor(lower / step));
  double from = loss_a < loss_b ? a : b;
  const double end = loss_a < loss_b ? b : a;
  for (;; ++j) {
    const bool last = double(j + 1) * step >= upper;
    const double to =
        last ? end : std::clamp(inverse(double(j + 1) * step), std::min(a, b), std::max(a, b));
    add_piece(out, step, j, from, to);
    if (last) return;
    from = to;
  }
}

void StepLoss::add_piece(LossMasses& out, double step, std::int64_t j, double from,
                         double to) const {
  static constexpr double kNode = 0.7745966692414834;  // Gauss-Legendre, three points
  const double middle = (from + to) / 2, half = std::abs(to - from) / 2;
  for (const auto& [node, weight] :
       {std::pair{-kNode, 5.0 / 9}, {0.0, 8.0 / 9}, {kNode, 5.0 / 9}}) {
    const double x = middle + node * half, mass = weight * half * density(x);
    const double above =
        std::clamp(std::expm1(double(j) * step - loss(x)) / std::expm1(-step), 0.0, 1.0);
    auto* at = &out.masses[std::size_t(j - out.first)];
    at[0] += mass * (1 - above);
    at[1] += mass * above;
  }
}

}  // namespace preceptor::privacy
