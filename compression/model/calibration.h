#pragma once
#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

/// Between which bounds a layer's input is rounded.
namespace preceptor::compression {

/// What a layer's input is like, in two looks at the same images: first its extremes, then a histogram between them.
/// Not for several threads at once.
class InputHistogram {
 public:
  static constexpr int kBins = 2048;

  void see_extremes(const at::Tensor& input);
  void count(const at::Tensor& input);  ///< after all extremes

  /// Bounds low ≤ 0 ≤ high; 0, 0 when nothing but zero was seen.
  using Bounds = std::pair<float, float>;
  Bounds extremes() const { return {float(low_), float(high_)}; }
  /// Bounds that at most 1 − percent/100 of the values are beyond, on either side. 50 < percent ≤ 100.
  Bounds percentile(double percent) const;
  /// The extremes, both shortened by the factor that makes the mean squared error of rounding smallest.
  Bounds least_squares() const;

 private:
  double centre(int bin) const { return low_ + (bin + 0.5) * (high_ - low_) / kBins; }
  double squared_error(double low, double high) const;

  double low_ = 0, high_ = 0;
  std::vector<double> counts_ = std::vector<double>(kBins);
};

}  // namespace preceptor::compression
