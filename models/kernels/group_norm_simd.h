#pragma once
#include <cstdint>

namespace preceptor::models::kernels {

/// One group norm over images in channels_last (kernels.h has what it does).
struct GroupNorm {
  std::int64_t pixels, channels, groups;  ///< of one image: H·W, C, and a divisor of C
  double eps;
  std::int64_t floats() const { return pixels * channels; }
};

/// One image: y [pixels, C], and of each group the mean and 1 / deviation. y must not be x.
void group_norm_forward(const GroupNorm& norm, const float* x, const float* weight, const float* bias, float* y, float* mean,
                        float* inverse);

/// The same image backwards, with grad [pixels, C] of y. to_weight and to_bias [C] are this image's own; to_x [pixels, C]
/// may be null, if only they are wanted (weight is not read then).
void group_norm_backward(const GroupNorm& norm, const float* x, const float* weight, const float* mean, const float* inverse,
                         const float* grad, float* to_x, float* to_weight, float* to_bias);

/// Means and 1 / deviations alone.
void group_norm_statistics(const GroupNorm& norm, const float* x, float* mean, float* inverse);

/// A depthwise convolution with a square kernel over images in channels_last.
struct Depthwise {
  std::int64_t height, width, channels, out_height, out_width;
  int kernel, stride, padding;
};

/// One image: gradient of the weight, [kernel, kernel, C], from its input and the gradient of its output.
void depthwise_gradient(const Depthwise& conv, const float* x, const float* grad, float* to_weight);

}  // namespace preceptor::models::kernels
