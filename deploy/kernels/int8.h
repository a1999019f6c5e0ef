#pragma once
#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <span>
#include <string>

#include "deploy/kernels/gemm.h"
#include "deploy/kernels/window.h"

/// Convolutions and linear layers of 8-bit values: unsigned inputs on a grid of 256 steps (scale, zero), signed weights
/// −127 … 127 on a grid a column. Sums are exact in int32 on every instruction set, no saturation on the way: so a model
/// gives the same bits on every CPU. What follows a sum is float32: value = fma(float(sum), scale[column], bias[column]),
/// then the epilogue, which defines the one rounding back onto a grid.
namespace preceptor::deploy::kernels {

/// The right matrix as [panels][taps · quads][kPanel][4]: four values of depth lie together; padded with zeros.
struct Int8Matrix {
  std::int64_t taps = 1, depth = 0, columns = 0;
  hwy::AlignedFreeUniquePtr<std::int8_t[]> values;
  hwy::AlignedFreeUniquePtr<std::int32_t[]> start;  ///< −zero · Σ weights: where a column's sum begins
  hwy::AlignedFreeUniquePtr<float[]> scale, bias;   ///< input's scale · weight's; the layer's bias
  std::int64_t quads() const { return (depth + 3) / 4; }
  std::size_t bytes() const { return std::size_t(panels(columns) * kPanel) * std::size_t(taps * quads() * 4 + 12); }
};

/// Weight (tap, k, column) is at from[tap · tap_stride + k · depth_stride + column · column_stride].
/// weight_scales: one a column; an empty bias: zeros.
Int8Matrix pack_int8(const std::int8_t* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
                     std::int64_t depth_stride, std::int64_t column_stride, std::span<const float> weight_scales, float input_scale,
                     std::int32_t input_zero, std::span<const float> bias);

/// `sums`, if not null, gets start + Σ input · weight, [rows, columns]. Rows may be read up to the next multiple of 4 of
/// the depth; `outside` holds the input's zero.
void gemm_int8(const Int8Matrix& right, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums = nullptr);
/// The same in plain loops: what every instruction set must equal, bit for bit.
void gemm_int8_reference(const Int8Matrix& right, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums = nullptr);

/// Depthwise: `columns` channels, one value of depth. values: [taps][channels up to a multiple of 64].
struct Int8Depthwise {
  std::int64_t taps = 0, channels = 0;
  std::int32_t zero = 0;  ///< the input's
  hwy::AlignedFreeUniquePtr<std::int16_t[]> values;
  hwy::AlignedFreeUniquePtr<std::int32_t[]> start;
  hwy::AlignedFreeUniquePtr<float[]> scale, bias;
  std::int64_t stride() const { return (channels + 63) / 64 * 64; }
  std::size_t bytes() const { return std::size_t(stride() * (taps * 2 + 12)); }
};
Int8Depthwise pack_int8_depthwise(const std::int8_t* weight, std::int64_t channels, std::int64_t taps, std::span<const float> weight_scales,
                                  float input_scale, std::int32_t input_zero, std::span<const float> bias);
/// sums: [output pixels, channels]. Reads whole vectors of pixels: up to 63 bytes behind the last one.
void depthwise_int8(const Window& window, const Int8Depthwise& weights, const std::uint8_t* images, const Epilogue& epilogue,
                    std::int32_t* sums = nullptr);
void depthwise_int8_reference(const Window& window, const Int8Depthwise& weights, const std::uint8_t* images, const Epilogue& epilogue,
                              std::int32_t* sums = nullptr);

/// "VNNI", "AVX-512", "AVX2" or "plain loops": what the calls above run. Logged the first time.
std::string int8_target();

}  // namespace preceptor::deploy::kernels
