#include "compression/model/calibration.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace preceptor::compression {
namespace {

constexpr double kSteps = 255;
constexpr double kShortest = 0.2, kShortening = 0.01;  ///< of the extremes, when the least error is looked for

}  // namespace

void InputHistogram::see_extremes(const at::Tensor& input) {
  low_ = std::min(low_, input.min().item<double>());
  high_ = std::max(high_, input.max().item<double>());
}

void InputHistogram::count(const at::Tensor& input) {
  if (low_ == high_) return;
  const auto counts = torch::histc(input.to(torch::kCPU).flatten(), kBins, low_, high_);
  for (int bin = 0; bin < kBins; ++bin) counts_[std::size_t(bin)] += counts.data_ptr<float>()[bin];
}

InputHistogram::Bounds InputHistogram::percentile(double percent) const {
  const double beyond = (1 - percent / 100) * std::accumulate(counts_.begin(), counts_.end(), 0.0);
  int first = 0, last = kBins - 1;
  for (double sum = counts_.front(); sum <= beyond && first < last; sum += counts_[std::size_t(first)]) ++first;
  for (double sum = counts_.back(); sum <= beyond && last > first; sum += counts_[std::size_t(last)]) --last;
  const double width = (high_ - low_) / kBins;
  return {float(std::min(0.0, low_ + first * width)), float(std::max(0.0, low_ + (last + 1) * width))};
}

double InputHistogram::squared_error(double low, double high) const {
  const double step = (high - low) / kSteps, zero = std::nearbyint(-low / step);
  double error = 0;
  for (int bin = 0; bin < kBins; ++bin) {
    const double value = centre(bin);
    const double code = std::clamp(std::nearbyint(value / step) + zero, 0.0, kSteps);
    error += counts_[std::size_t(bin)] * std::pow((code - zero) * step - value, 2);
  }
  return error;
}

InputHistogram::Bounds InputHistogram::least_squares() const {
  if (low_ == high_) return extremes();
  double best = 1, least = squared_error(low_, high_);
  for (double factor = 1 - kShortening; factor >= kShortest; factor -= kShortening) {
    const double error = squared_error(factor * low_, factor * high_);
    if (error < least) best = factor, least = error;
  }
  return {float(best * low_), float(best * high_)};
}

}  // namespace preceptor::compression
