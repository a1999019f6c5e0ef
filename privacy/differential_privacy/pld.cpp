#include "privacy/differential_privacy/pld.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <stdexcept>

#include "privacy/differential_privacy/fft.h"
#include "privacy/differential_privacy/special.h"

namespace preceptor::privacy {
namespace {

constexpr double kTail = 1e-14;            ///< mass that may be cut off, of the whole composition
constexpr std::size_t kPoints = 1u << 19;  ///< of the composed grid

/// Masses of one step's loss at (first + i) · step.
struct OneStep {
  std::int64_t first = 0;
  std::vector<double> masses;
  double infinite = 0;
};

/// Standard deviations outside which less than `tail` of a normal distribution lies.
double deviations(double tail) {
  double low = 0, high = 40;
  while (high - low > 1e-3) {
    const double mid = (low + high) / 2;
    (log_erfc(mid / std::sqrt(2.0)) - std::log(2.0) > std::log(tail) ? low : high) = mid;
  }
  return high;
}

/// One step. removed: the sample with the record against the one without; else the reverse.
class Step {
 public:
  Step(const SampledGaussian& part, bool removed, double tail)
      : q_(part.sampling_rate), sigma_(part.noise_multiplier), removed_(removed) {
    const double z = deviations(tail);
    low_ = (q_ == 1 && removed ? 1 : 0) - z * sigma_;
    high_ = (removed ? 1 : 0) + z * sigma_;
  }

  double loss(double x) const {
    const double t = (2 * x - 1) / (2 * sigma_ * sigma_);
    const double l = q_ == 1 ? t : t > 0 ? t + std::log(q_ + (1 - q_) * std::exp(-t)) : std::log1p(q_ * std::expm1(t));
    return removed_ ? l : -l;
  }
  double least() const { return std::min(loss(low_), loss(high_)); }
  double most() const { return std::max(loss(low_), loss(high_)); }

  OneStep on_grid(double step, double tail) const {
    OneStep out;
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

 private:
  double density(double x) const {
    const auto bell = [&](double d) { return std::exp(-d * d / (2 * sigma_ * sigma_)); };
    return removed_ ? (1 - q_) * bell(x) + q_ * bell(x - 1) : bell(x);
  }

  /// x of a loss inside the panel.
  double inverse(double l) const {
    const double e = removed_ ? l : -l;
    const double t = q_ == 1 ? e : e > 0 ? e + std::log((1 - (1 - q_) * std::exp(-e)) / q_) : std::log1p(std::expm1(e) / q_);
    return sigma_ * sigma_ * t + 0.5;
  }

  /// Cuts [a, b] where the loss crosses the grid, so that each piece's loss lies between two points.
  void split_panel(OneStep& out, double step, double a, double b, double loss_a, double loss_b) const {
    const double lower = std::min(loss_a, loss_b), upper = std::max(loss_a, loss_b);
    std::int64_t j = std::int64_t(std::floor(lower / step));
    double from = loss_a < loss_b ? a : b;
    const double end = loss_a < loss_b ? b : a;
    for (;; ++j) {
      const bool last = double(j + 1) * step >= upper;
      const double to = last ? end : std::clamp(inverse(double(j + 1) * step), std::min(a, b), std::max(a, b));
      add_piece(out, step, j, from, to);
      if (last) return;
      from = to;
    }
  }

  void add_piece(OneStep& out, double step, std::int64_t j, double from, double to) const {
    static constexpr double kNode = 0.7745966692414834;  // Gauss-Legendre, three points
    const double middle = (from + to) / 2, half = std::abs(to - from) / 2;
    for (const auto& [node, weight] : {std::pair{-kNode, 5.0 / 9}, {0.0, 8.0 / 9}, {kNode, 5.0 / 9}}) {
      const double x = middle + node * half, mass = weight * half * density(x);
      const double above = std::clamp(std::expm1(double(j) * step - loss(x)) / std::expm1(-step), 0.0, 1.0);
      auto* at = &out.masses[std::size_t(j - out.first)];
      at[0] += mass * (1 - above);
      at[1] += mass * above;
    }
  }

  double q_, sigma_;
  bool removed_;
  double low_ = 0, high_ = 0;
};

double log_moment(const OneStep& one, double step, double lambda) {
  double most = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < one.masses.size(); ++i)
    if (one.masses[i] > 0) most = std::max(most, lambda * double(one.first + std::int64_t(i)) * step);
  double sum = 0;
  for (std::size_t i = 0; i < one.masses.size(); ++i)
    if (one.masses[i] > 0) sum += one.masses[i] * std::exp(lambda * double(one.first + std::int64_t(i)) * step - most);
  return most + std::log(sum);
}

struct Window {
  double low = 0, high = 0;
};
/// Where the composed loss lies but for kTail on either side: Chernoff's bound on a coarse grid, whose
/// moments are larger than those of a finer one.
Window window_of(std::span<const SampledGaussian> parts, bool removed, double tail, double finest) {
  Window window{-1e300, 1e300};
  std::vector<std::pair<OneStep, double>> coarse;
  for (const auto& part : parts) {
    const Step one(part, removed, tail);
    const double step = std::max((one.most() - one.least()) / 2048, finest);
    coarse.emplace_back(one.on_grid(step, tail), step);
  }
  for (double lambda = 1e-3; lambda < 1e5; lambda *= 1.3) {
    double up = -std::log(kTail), down = up;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      up += double(parts[i].steps) * log_moment(coarse[i].first, coarse[i].second, lambda);
      down += double(parts[i].steps) * log_moment(coarse[i].first, coarse[i].second, -lambda);
    }
    window.high = std::min(window.high, up / lambda);
    window.low = std::max(window.low, -down / lambda);
  }
  return window;
}

std::complex<double> power(std::complex<double> base, std::uint64_t exponent) {
  std::complex<double> result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

}  // namespace

PrivacyLoss::PrivacyLoss(std::span<const SampledGaussian> parts, double step) {
  for (const auto& part : parts)
    if (!(part.sampling_rate > 0 && part.sampling_rate <= 1 && part.noise_multiplier > 0 && part.steps > 0))
      throw std::invalid_argument("the sampling rate is in (0, 1], noise multiplier and steps above 0");
  removed_ = compose(parts, true, step);
  added_ = compose(parts, false, step);
}

PrivacyLoss::Composed PrivacyLoss::compose(std::span<const SampledGaussian> parts, bool removed, double finest) {
  Composed out{0, 1, 0, {1}};
  if (parts.empty()) return out;
  double steps = 0;
  for (const auto& part : parts) steps += double(part.steps);
  const double tail = kTail / steps;
  const auto window = window_of(parts, removed, tail, finest);
  out.step = std::max((window.high - window.low) / double(kPoints - 2), finest);
  const auto first = std::int64_t(std::floor(window.low / out.step));
  out.low = double(first) * out.step;
  std::vector<std::complex<double>> spectrum(kPoints, 1), one(kPoints);
  const Fft fft(kPoints);
  double finite = 1;
  const auto at = [](std::int64_t index) { return std::size_t(index) & (kPoints - 1); };
  for (const auto& part : parts) {
    const auto grid = Step(part, removed, tail).on_grid(out.step, tail);
    std::fill(one.begin(), one.end(), 0);
    for (std::size_t i = 0; i < grid.masses.size(); ++i) one[at(grid.first + std::int64_t(i))] += grid.masses[i];
    fft.forward(one);
    for (std::size_t i = 0; i < kPoints; ++i) spectrum[i] *= power(one[i], part.steps);
    finite *= std::pow(1 - grid.infinite, double(part.steps));
  }
  fft.inverse(spectrum);
  out.masses.resize(kPoints);
  for (std::size_t i = 0; i < kPoints; ++i) out.masses[i] = std::max(0.0, spectrum[at(first + std::int64_t(i))].real());
  out.infinite = 1 - finite + kTail;  // and what left the window above
  return out;
}

double PrivacyLoss::delta(const Composed& composed, double epsilon) {
  double sum = 0;
  for (std::size_t i = 0; i < composed.masses.size(); ++i)
    if (const double loss = composed.low + double(i) * composed.step; loss > epsilon)
      sum -= composed.masses[i] * std::expm1(epsilon - loss);
  return std::min(1.0, sum + composed.infinite);
}

double PrivacyLoss::epsilon(const Composed& composed, double delta) {
  // Down from the largest loss: δ(ε) = above - e^ε · weighted + infinite between two points.
  double above = 0, weighted = 0;
  for (std::size_t i = composed.masses.size(); i-- > 0;) {
    const double loss = composed.low + double(i) * composed.step;
    // Does δ reach its bound between this point and the next?
    if (above - std::exp(loss) * weighted + composed.infinite > delta || loss < 0) break;
    above += composed.masses[i];
    weighted += composed.masses[i] * std::exp(-loss);
  }
  const double room = above + composed.infinite - delta;
  return room <= 0 || weighted <= 0 ? 0 : std::max(0.0, std::log(room / weighted));
}

double PrivacyLoss::delta(double epsilon) const { return std::max(delta(removed_, epsilon), delta(added_, epsilon)); }

double PrivacyLoss::epsilon(double delta) const {
  if (delta < kSmallestDelta) throw std::invalid_argument("the grid's rounding hides a delta this small");
  return std::max(epsilon(removed_, delta), epsilon(added_, delta));
}

}  // namespace preceptor::privacy
