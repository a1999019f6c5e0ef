#include <algorithm>
#include <cmath>

#include "deploy/kernels/int8.h"

namespace preceptor::deploy::kernels {
namespace {

/// Activations by their definitions; only those without an exponential are the same bits as the kernels'.
float activate(Activation how, float x, float slope) {
  switch (how) {
    case Activation::kNone: return x;
    case Activation::kRelu: return std::max(x, 0.f);
    case Activation::kRelu6: return std::min(std::max(x, 0.f), 6.f);
    case Activation::kSigmoid: return 1 / (1 + std::exp(-x));
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kHardsigmoid: return std::min(std::max(x + 3, 0.f), 6.f) * (1.f / 6);
    case Activation::kHardswish: return x * std::min(std::max(x + 3, 0.f), 6.f) * (1.f / 6);
    case Activation::kGelu: return 0.5f * x * (1 + std::erf(x * 0.70710678f));
    case Activation::kLeakyRelu: return x < 0 ? x * slope : x;
  }
  return x;
}

void finish(const Epilogue& e, std::int32_t sum, float scale, float bias, std::int64_t row, std::int64_t column) {
  float y = activate(e.before, std::fma(float(sum), scale, bias), e.slope);
  if (e.residual) y += e.residual[row * e.residual_stride + column];
  y = activate(e.after, y, e.slope);
  if (e.out) e.out[row * e.out_stride + column] = y;
  if (!e.grid) return;
  const float steps = std::min(std::max(y * e.inverse_scale, float(-e.zero)), float(255 - e.zero));
  e.grid[row * e.grid_stride + column] = std::uint8_t(std::int32_t(std::nearbyint(steps)) + e.zero);
}

}  // namespace

void gemm_int8_reference(const Int8Matrix& right, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums) {
  const auto quads = right.quads();
  for (std::int64_t m = 0; m < rows.count; ++m)
    for (std::int64_t n = 0; n < right.columns; ++n) {
      auto sum = right.start[std::size_t(n)];
      const std::int8_t* panel = right.values.get() + n / kPanel * kPanel * right.taps * quads * 4 + n % kPanel * 4;
      for (std::int64_t t = 0; t < right.taps; ++t) {
        const auto offset = rows.offsets[m * right.taps + t];
        const std::uint8_t* left = offset == kOutside ? rows.outside : rows.base + offset;
        for (std::int64_t k = 0; k < right.depth; ++k) sum += std::int32_t(left[k]) * panel[(t * quads + k / 4) * kPanel * 4 + k % 4];
      }
      if (sums) sums[m * right.columns + n] = sum;
      finish(epilogue, sum, right.scale[std::size_t(n)], right.bias[std::size_t(n)], m, n);
    }
}

void depthwise_int8_reference(const Window& w, const Int8Depthwise& weights, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
  std::int64_t row = 0;
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t y = 0; y < w.out_height; ++y)
      for (std::int64_t x = 0; x < w.out_width; ++x, ++row)
        for (std::int64_t c = 0; c < w.channels; ++c) {
          auto sum = weights.start[std::size_t(c)];
          for (std::int64_t ky = 0; ky < w.kernel_height; ++ky)
            for (std::int64_t kx = 0; kx < w.kernel_width; ++kx) {
              const auto iy = y * w.stride_y - w.padding_y + ky * w.dilation_y, ix = x * w.stride_x - w.padding_x + kx * w.dilation_x;
              const bool in = iy >= 0 && iy < w.height && ix >= 0 && ix < w.width;
              const std::int32_t q = in ? images[b * w.batch_stride + iy * w.row_stride + ix * w.pixel_stride + c] : weights.zero;
              sum += q * weights.values[std::size_t((ky * w.kernel_width + kx) * weights.stride() + c)];
            }
          if (sums) sums[row * w.channels + c] = sum;
          finish(epilogue, sum, weights.scale[std::size_t(c)], weights.bias[std::size_t(c)], row, c);
        }
}

Int8Matrix pack_int8(const std::int8_t* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
                     std::int64_t depth_stride, std::int64_t column_stride, std::span<const float> weight_scales, float input_scale,
                     std::int32_t input_zero, std::span<const float> bias) {
  const auto padded = std::size_t(panels(columns) * kPanel), quads = std::size_t((depth + 3) / 4);
  Int8Matrix m{taps, depth, columns, hwy::AllocateAligned<std::int8_t>(padded * std::size_t(taps) * quads * 4), hwy::AllocateAligned<std::int32_t>(padded),
               hwy::AllocateAligned<float>(padded), hwy::AllocateAligned<float>(padded)};
  std::fill_n(m.values.get(), padded * std::size_t(taps) * quads * 4, std::int8_t(0));
  std::fill_n(m.start.get(), padded, 0);
  std::fill_n(m.scale.get(), padded, 0.f);
  std::fill_n(m.bias.get(), padded, 0.f);
  for (std::int64_t n = 0; n < columns; ++n) {
    std::int8_t* panel = m.values.get() + n / kPanel * kPanel * taps * std::int64_t(quads) * 4 + n % kPanel * 4;
    std::int32_t total = 0;
    for (std::int64_t t = 0; t < taps; ++t)
      for (std::int64_t k = 0; k < depth; ++k) {
        const auto value = from[t * tap_stride + k * depth_stride + n * column_stride];
        panel[(t * std::int64_t(quads) + k / 4) * kPanel * 4 + k % 4] = value;
        total += value;
      }
    m.start[std::size_t(n)] = -input_zero * total;
    m.scale[std::size_t(n)] = input_scale * weight_scales[std::size_t(n)];
    if (!bias.empty()) m.bias[std::size_t(n)] = bias[std::size_t(n)];
  }
  return m;
}

Int8Depthwise pack_int8_depthwise(const std::int8_t* weight, std::int64_t channels, std::int64_t taps, std::span<const float> weight_scales,
                                  float input_scale, std::int32_t input_zero, std::span<const float> bias) {
  const auto padded = std::size_t((channels + 63) / 64 * 64);
  Int8Depthwise d{taps, channels, input_zero, hwy::AllocateAligned<std::int16_t>(padded * std::size_t(taps)), hwy::AllocateAligned<std::int32_t>(padded),
                  hwy::AllocateAligned<float>(padded), hwy::AllocateAligned<float>(padded)};
  std::fill_n(d.values.get(), padded * std::size_t(taps), std::int16_t(0));
  std::fill_n(d.start.get(), padded, 0);
  std::fill_n(d.scale.get(), padded, 0.f);
  std::fill_n(d.bias.get(), padded, 0.f);
  for (std::int64_t c = 0; c < channels; ++c) {
    std::int32_t total = 0;
    for (std::int64_t t = 0; t < taps; ++t) {
      d.values[std::size_t(t) * padded + std::size_t(c)] = weight[c * taps + t];
      total += weight[c * taps + t];
    }
    d.start[std::size_t(c)] = -input_zero * total;
    d.scale[std::size_t(c)] = input_scale * weight_scales[std::size_t(c)];
    if (!bias.empty()) d.bias[std::size_t(c)] = bias[std::size_t(c)];
  }
  return d;
}

}  // namespace preceptor::deploy::kernels
