// Depthwise 3×3 windows, compiled once for each instruction set: hence the guard that toggles.
#if defined(PRECEPTOR_DEPLOY_KERNELS_SLIDE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRECEPTOR_DEPLOY_KERNELS_SLIDE_INL_H_
#undef PRECEPTOR_DEPLOY_KERNELS_SLIDE_INL_H_
#else
#define PRECEPTOR_DEPLOY_KERNELS_SLIDE_INL_H_
#endif

#include "deploy/kernels/epilogue-inl.h"
#include "deploy/kernels/window.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {

/// 3×3, stride 1 or 2, a frame of one pixel around the image.
inline bool slides(const Window& w) {
  return w.kernel_height == 3 && w.kernel_width == 3 && w.padding_y == 1 && w.padding_x == 1 && w.dilation_y == 1 && w.dilation_x == 1 &&
         w.stride_y == w.stride_x && (w.stride_x == 1 || w.stride_x == 2);
}

/// Rows of outputs that are made together: they share the rows of the image that they overlap on.
constexpr int kSlideRows = kLanes == 16 ? 3 : 1;

/// One vector of channels of R rows of outputs, from left to right: each pixel is loaded once, for all the sums that it goes
/// into. `weight`: nine vectors. load(pointer) → V; end(V) → what the epilogue gets. `outside`: a pixel of the frame.
template <int R, int S, class T, class Load, class End>
HWY_INLINE void slide_rows(const Window& w, const T* image, const T* outside, std::int64_t y, std::int64_t row, std::int64_t channel, V start,
                           const V (&weight)[9], const Load& load_pixel, const End& end, const Epilogue& epilogue) {
  constexpr int kLines = S * (R - 1) + 3;
  const T* line[kLines];
  std::int64_t step[kLines];
  for (int i = 0; i < kLines; ++i) {
    const auto at = y * S - 1 + i;
    const bool in = at >= 0 && at < w.height;
    line[i] = in ? image + at * w.row_stride : outside;
    step[i] = in ? w.pixel_stride : 0;
  }
  V pixel[kLines];
  const auto next_column = [&]() HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < kLines; ++i) {
      pixel[i] = load_pixel(line[i]);
      line[i] += step[i];
    }
  };
  const auto add = [&](V(&sums)[R][1], int kx) HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int ky = 0; ky < 3; ++ky) sums[r][0] = hn::MulAdd(pixel[S * r + ky], weight[3 * ky + kx], sums[r][0]);
  };
  const auto done = [&](V(&sums)[R][1], std::int64_t x) HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = end(sums[r][0]);
    finish(epilogue, sums, row + x, channel, w.channels, w.out_width);
  };
  const auto begin = [&](V(&sums)[R][1]) HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sums[r][0] = start;
  };
  const auto copy = [](V(&to)[R][1], const V(&from)[R][1]) HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) to[r][0] = from[r][0];
  };
  const auto frame = [&]() HWY_ATTR __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int i = 0; i < kLines; ++i) pixel[i] = load_pixel(outside);
  };
  V now[R][1], next[R][1];
  begin(now);
  frame();
  add(now, 0);
  if constexpr (S == 1) {
    V last[R][1];
    next_column();
    add(now, 1);
    begin(next);
    add(next, 0);
    for (std::int64_t x = 1; x < w.width; ++x) {
      copy(last, now);
      copy(now, next);
      next_column();
      add(last, 2);
      done(last, x - 1);
      add(now, 1);
      begin(next);
      add(next, 0);
    }
    frame();
    add(now, 2);
    done(now, w.width - 1);
  } else {
    for (std::int64_t x = 0; x < w.out_width; ++x) {
      next_column();
      add(now, 1);
      if (2 * x + 1 < w.width) next_column();
      else frame();
      add(now, 2);
      begin(next);
      add(next, 0);
      done(now, x);
      copy(now, next);
    }
  }
}

/// All outputs of one image for the vector of channels from `channel` on. `image` stands at that channel.
template <class T, class Load, class End>
HWY_INLINE void slide(const Window& w, const T* image, const T* outside, std::int64_t first_row, std::int64_t channel, V start, const V (&weight)[9],
                      const Load& load_pixel, const End& end, const Epilogue& epilogue) {
  const auto rows = [&]<int R>(std::int64_t y) HWY_ATTR __attribute__((always_inline)) {
    const auto row = first_row + y * w.out_width;
    if (w.stride_x == 1) slide_rows<R, 1>(w, image, outside, y, row, channel, start, weight, load_pixel, end, epilogue);
    else slide_rows<R, 2>(w, image, outside, y, row, channel, start, weight, load_pixel, end, epilogue);
  };
  std::int64_t y = 0;
  for (; y + kSlideRows <= w.out_height; y += kSlideRows) rows.template operator()<kSlideRows>(y);
  for (; y < w.out_height; ++y) rows.template operator()<1>(y);
}

}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // the toggling guard
