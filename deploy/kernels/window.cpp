#include "deploy/kernels/window.h"

#include "deploy/kernels/simd_targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deploy/kernels/window.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "deploy/kernels/slide-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kStep = std::int64_t(kLanes);
constexpr int kPixels = 8;  // of a row, that share each load of a weight

/// Taps first … last − 1 lie inside the image.
struct Taps {
  std::int64_t first, last;
};
Taps inside(std::int64_t at, std::int64_t dilation, std::int64_t kernel, std::int64_t size) {
  const auto first = at < 0 ? (-at + dilation - 1) / dilation : 0;
  return {std::min(first, kernel), std::max(std::min(kernel, (size - at + dilation - 1) / dilation), std::min(first, kernel))};
}

/// One window after another: start() → sums, tap(sums, x, tap), end(sums, taps inside) → what the epilogue gets.
template <class Kernel>
void each_window(const Window& w, const float* images, const Epilogue& epilogue, const Kernel& kernel) {
  // Outputs whose windows lie inside the image, from left to right.
  const auto reach = (w.kernel_width - 1) * w.dilation_x;
  const auto left = std::min(w.out_width, (w.padding_x + w.stride_x - 1) / w.stride_x);
  const auto space = w.width - 1 - reach + w.padding_x;
  const auto right = space < 0 ? left : std::max(left, std::min(w.out_width, space / w.stride_x + 1));
  // Channels outside: the rows that windows share are then few enough to stay in the first cache.
  for (std::int64_t b = 0; b < w.batch; ++b) {
    for (std::int64_t c = 0; c < w.channels; c += kStep) {
      const float* image = images + b * w.batch_stride + c;
      for (std::int64_t y = 0; y < w.out_height; ++y) {
        const auto top = y * w.stride_y - w.padding_y;
        const auto [y0, y1] = inside(top, w.dilation_y, w.kernel_height, w.height);
        const auto row = (b * w.out_height + y) * w.out_width;
        const auto run = [&]<int N>(std::int64_t x, std::int64_t x0, std::int64_t x1) {
          V sums[N][1];
#pragma GCC unroll 8
          for (int i = 0; i < N; ++i) sums[i][0] = kernel.start(c);
          for (auto ky = y0; ky < y1; ++ky) {
            const float* line = image + (top + ky * w.dilation_y) * w.row_stride + (x * w.stride_x - w.padding_x) * w.pixel_stride;
            for (auto kx = x0; kx < x1; ++kx) {
              const float* at = line + kx * w.dilation_x * w.pixel_stride;
              const auto weight = kernel.weight(c, ky * w.kernel_width + kx);
#pragma GCC unroll 8
              for (int i = 0; i < N; ++i) sums[i][0] = kernel.tap(sums[i][0], load(at + i * w.stride_x * w.pixel_stride), weight);
            }
          }
#pragma GCC unroll 8
          for (int i = 0; i < N; ++i) sums[i][0] = kernel.end(sums[i][0], (y1 - y0) * (x1 - x0));
          finish(epilogue, sums, row + x, c, w.channels);
        };
        const auto border = [&](std::int64_t x) {
          const auto [x0, x1] = inside(x * w.stride_x - w.padding_x, w.dilation_x, w.kernel_width, w.width);
          run.template operator()<1>(x, x0, x1);
        };
        std::int64_t x = 0;
        for (; x < left; ++x) border(x);
        for (; x + kPixels <= right; x += kPixels) run.template operator()<kPixels>(x, 0, w.kernel_width);
        for (; x + 4 <= right; x += 4) run.template operator()<4>(x, 0, w.kernel_width);
        for (; x + 2 <= right; x += 2) run.template operator()<2>(x, 0, w.kernel_width);
        for (; x < w.out_width; ++x) border(x);
      }
    }
  }
}

struct Depthwise {
  const float *values, *bias;
  std::int64_t stride;
  HWY_INLINE V start(std::int64_t c) const { return load(bias + c); }
  HWY_INLINE V weight(std::int64_t c, std::int64_t tap) const { return load(values + tap * stride + c); }
  HWY_INLINE V tap(V sum, V x, V weight) const { return hn::MulAdd(x, weight, sum); }
  HWY_INLINE V end(V sum, std::int64_t) const { return sum; }
};

struct Max {
  HWY_INLINE V start(std::int64_t) const { return set(-3.4e38f); }
  HWY_INLINE int weight(std::int64_t, std::int64_t) const { return 0; }
  HWY_INLINE V tap(V sum, V x, int) const { return hn::Max(sum, x); }
  HWY_INLINE V end(V sum, std::int64_t) const { return sum; }
};

struct Average {
  std::int64_t divisor;
  HWY_INLINE V start(std::int64_t) const { return hn::Zero(F()); }
  HWY_INLINE int weight(std::int64_t, std::int64_t) const { return 0; }
  HWY_INLINE V tap(V sum, V x, int) const { return hn::Add(sum, x); }
  HWY_INLINE V end(V sum, std::int64_t taps) const { return hn::Mul(sum, set(1.f / float(divisor ? divisor : taps))); }
};

void depthwise(const Window& w, const float* values, const float* bias, const float* images, const Epilogue& e) {
  const auto stride = (w.channels + 15) / 16 * 16;
  if (!slides(w)) return each_window(w, images, e, Depthwise{values, bias, stride});
  alignas(64) constexpr float kZeros[16] = {};
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t c = 0; c < w.channels; c += kStep) {
      V weight[9];
      for (int t = 0; t < 9; ++t) weight[t] = load(values + t * stride + c);
      slide(w, images + b * w.batch_stride + c, kZeros, b * w.out_height * w.out_width, c, load(bias + c), weight,
            [](const float* p) HWY_ATTR { return load(p); }, [](V sum) HWY_ATTR { return sum; }, e);
    }
}
void max_pool(const Window& w, const float* images, const Epilogue& e) { each_window(w, images, e, Max{}); }
void average_pool(const Window& w, std::int64_t divisor, const float* images, const Epilogue& e) { each_window(w, images, e, Average{divisor}); }

}  // namespace
}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::deploy::kernels {
namespace {
HWY_EXPORT(depthwise);
HWY_EXPORT(max_pool);
HWY_EXPORT(average_pool);
}  // namespace

void depthwise(const Window& window, const DepthwiseWeights& weights, const float* images, const Epilogue& epilogue) {
  HWY_DYNAMIC_DISPATCH(depthwise)(window, weights.values.get(), weights.bias.get(), images, epilogue);
}
void max_pool(const Window& window, const float* images, const Epilogue& epilogue) { HWY_DYNAMIC_DISPATCH(max_pool)(window, images, epilogue); }
void average_pool(const Window& window, std::int64_t divisor, const float* images, const Epilogue& epilogue) {
  HWY_DYNAMIC_DISPATCH(average_pool)(window, divisor, images, epilogue);
}

DepthwiseWeights pack_depthwise(const float* weight, std::int64_t channels, std::int64_t taps, std::span<const float> bias) {
  const auto padded = (channels + 15) / 16 * 16;
  DepthwiseWeights packed{hwy::AllocateAligned<float>(std::size_t(padded * taps)), hwy::AllocateAligned<float>(std::size_t(padded)),
                          std::size_t(padded * (taps + 1)) * sizeof(float)};
  std::fill_n(packed.values.get(), padded * taps, 0.f);
  std::fill_n(packed.bias.get(), padded, 0.f);
  for (std::int64_t c = 0; c < channels; ++c)
    for (std::int64_t t = 0; t < taps; ++t) packed.values[std::size_t(t * padded + c)] = weight[c * taps + t];
  std::ranges::copy(bias, packed.bias.get());
  return packed;
}

}  // namespace preceptor::deploy::kernels
#endif
