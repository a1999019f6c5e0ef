#include "deploy/kernels/int8.h"

#include "deploy/kernels/simd_targets.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "common/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deploy/kernels/int8.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "deploy/kernels/epilogue-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {
namespace {

// x86 has instructions for sums of products of bytes; elsewhere the reference runs.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
using W = hn::Vec<I>;
constexpr int kVectors = int(kPanel / std::int64_t(kLanes));  // of a panel
constexpr int kMaxPanels = kLanes == 16 ? 4 : 1;
constexpr int kRows = HWY_TARGET == HWY_AVX3_DL ? 6 : 4;  // 16-bit weights take two registers

HWY_INLINE W load_i32(const void* p) { return hn::LoadU(I(), static_cast<const std::int32_t*>(p)); }

/// Weights of one vector of columns, four of depth each, ready to be multiplied.
struct Weights {
  Weights() = default;
#if HWY_TARGET == HWY_AVX3_DL
  W bytes;
  HWY_INLINE explicit Weights(const std::int8_t* p) : bytes(load_i32(p)) {}
#else
  W even, odd;  // as 16-bit values: exact, where vpmaddubsw would saturate
  HWY_INLINE explicit Weights(const std::int8_t* p) {
    const hn::Repartition<std::int16_t, I> i16;
    const auto both = hn::BitCast(i16, load_i32(p));
    even = hn::BitCast(I(), hn::ShiftRight<8>(hn::ShiftLeft<8>(both)));
    odd = hn::BitCast(I(), hn::ShiftRight<8>(both));
  }
#endif
};

/// Four values of a row.
struct Quad {
#if HWY_TARGET == HWY_AVX3_DL
  W bytes;
  HWY_INLINE explicit Quad(const std::uint8_t* p) {
    std::int32_t all;
    std::memcpy(&all, p, 4);
    bytes = hn::Set(I(), all);
  }
#else
  W even, odd;
  HWY_INLINE explicit Quad(const std::uint8_t* p) {
    std::uint32_t all;
    std::memcpy(&all, p, 4);
    even = hn::Set(I(), std::int32_t(all & 0x00FF00FF));
    odd = hn::Set(I(), std::int32_t(all >> 8 & 0x00FF00FF));
  }
#endif
};

HWY_INLINE W madd(W a, W b) {
#if HWY_TARGET == HWY_AVX2
  return W{_mm256_madd_epi16(a.raw, b.raw)};
#else
  return W{_mm512_madd_epi16(a.raw, b.raw)};
#endif
}

/// sum + Σ of the four products.
HWY_INLINE W multiply_add(W sum, const Quad& x, const Weights& w) {
#if HWY_TARGET == HWY_AVX3_DL
  // Highway 1.0.3 compiles this target without the flag that the intrinsic needs, and asks the CPU for the instruction.
  asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(x.bytes.raw), "v"(w.bytes.raw));
  return sum;
#else
  return hn::Add(sum, hn::Add(madd(x.even, w.even), madd(x.odd, w.odd)));
#endif
}

HWY_INLINE void end(const Epilogue& e, std::int32_t* sums, std::int64_t columns, W sum, const float* scale, const float* bias, std::int64_t row,
                    std::int64_t column) {
  const auto count = std::size_t(columns - column);
  if (HWY_UNLIKELY(sums != nullptr)) {
    alignas(64) std::int32_t lanes[kLanes];
    hn::StoreU(sum, I(), lanes);
    std::copy_n(lanes, std::min(count, kLanes), sums + row * columns + column);
  }
  finish(e, hn::MulAdd(hn::ConvertTo(F(), sum), load(scale + column), load(bias + column)), row, column, count);
}

template <int R, int P>
void tile(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* all_sums, std::int64_t first, std::int64_t panel) {
  constexpr int N = P * kVectors;
  const auto quads = m.quads(), stride = m.taps * quads * kPanel * 4;
  const std::int8_t* right = m.values.get() + panel * stride;
  W sums[R][N];
  for (int n = 0; n < N; ++n)
    for (int r = 0; r < R; ++r) sums[r][n] = load_i32(m.start.get() + panel * kPanel + n * std::int64_t(kLanes));
  const std::int32_t* offsets = rows.offsets + first * m.taps;
  for (std::int64_t tap = 0; tap < m.taps; ++tap) {
    const std::uint8_t* left[R];
    for (int r = 0; r < R; ++r) {
      const auto offset = offsets[r * m.taps + tap];
      left[r] = offset == kOutside ? rows.outside : rows.base + offset;
    }
    for (std::int64_t k = 0; k < quads; ++k, right += kPanel * 4) {
      Weights weights[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) weights[n] = Weights(right + n / kVectors * stride + n % kVectors * std::int64_t(kLanes) * 4);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const Quad x(left[r] + 4 * k);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[r][n] = multiply_add(sums[r][n], x, weights[n]);
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int n = 0; n < N; ++n) {
      const auto column = panel * kPanel + n * std::int64_t(kLanes);
      if (column < m.columns) end(epilogue, all_sums, m.columns, sums[r][n], m.scale.get(), m.bias.get(), first + r, column);
    }
}

template <int P>
void all_rows(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums, std::int64_t panel) {
  std::int64_t row = 0;
  for (; row + kRows <= rows.count; row += kRows) tile<kRows, P>(m, rows, epilogue, sums, row, panel);
  for (; row + 2 <= rows.count; row += 2) tile<2, P>(m, rows, epilogue, sums, row, panel);
  for (; row < rows.count; ++row) tile<1, P>(m, rows, epilogue, sums, row, panel);
}

void gemm(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums) {
  const auto all = panels(m.columns), groups = (all + kMaxPanels - 1) / kMaxPanels;
  for (std::int64_t group = 0; group < groups; ++group) {
    const auto panel = all * group / groups;
    switch (all * (group + 1) / groups - panel) {
      case 1: all_rows<1>(m, rows, epilogue, sums, panel); break;
#if HWY_TARGET != HWY_AVX2
      case 2: all_rows<2>(m, rows, epilogue, sums, panel); break;
      case 3: all_rows<3>(m, rows, epilogue, sums, panel); break;
      case 4: all_rows<4>(m, rows, epilogue, sums, panel); break;
#endif
    }
  }
}

/// Eight pixels of a row share each load of a weight. Pixels outside hold the input's zero: a weight times it, added apart.
template <int N>
void pixels(const Window& w, const Int8Depthwise& d, const std::uint8_t* image, const Epilogue& epilogue, std::int32_t* sums, std::int64_t row,
            std::int64_t y, std::int64_t x, std::int64_t c) {
  const hn::Rebind<std::uint8_t, F> u8;
  const hn::Rebind<std::int16_t, F> i16;
  const W zero = hn::Set(I(), d.zero);
  W total[N];
  for (int i = 0; i < N; ++i) total[i] = load_i32(d.start.get() + c);
  // Two taps at a time, as pairs of 16-bit values: one instruction multiplies and adds them.
  const auto taps = w.kernel_height * w.kernel_width;
  const auto weight_of = [&](std::int64_t tap) { return hn::PromoteTo(I(), hn::LoadU(i16, d.values.get() + tap * d.stride() + c)); };
  const auto pixel_of = [&](std::int64_t tap) -> const std::uint8_t* {
    const auto iy = y * w.stride_y - w.padding_y + tap / w.kernel_width * w.dilation_y, ix = x * w.stride_x - w.padding_x + tap % w.kernel_width * w.dilation_x;
    // Of several pixels all windows lie inside from left to right: only one alone may reach over an edge.
    const bool in = iy >= 0 && iy < w.height && (N > 1 || (ix >= 0 && ix < w.width));
    return in ? image + iy * w.row_stride + ix * w.pixel_stride + c : nullptr;
  };
  const auto step = w.stride_x * w.pixel_stride;
  for (std::int64_t tap = 0; tap < taps; tap += 2) {
    const bool pair = tap + 1 < taps;
    const W low = hn::And(weight_of(tap), hn::Set(I(), 0xFFFF));
    const W weights = pair ? hn::Or(low, hn::ShiftLeft<16>(weight_of(tap + 1))) : low;
    const std::uint8_t *first = pixel_of(tap), *second = pair ? pixel_of(tap + 1) : nullptr;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const W a = first ? hn::PromoteTo(I(), hn::LoadU(u8, first + i * step)) : zero;
      const W b = second ? hn::PromoteTo(I(), hn::LoadU(u8, second + i * step)) : zero;
      total[i] = hn::Add(total[i], madd(hn::Or(a, hn::ShiftLeft<16>(b)), weights));
    }
  }
  for (int i = 0; i < N; ++i) end(epilogue, sums, w.channels, total[i], d.scale.get(), d.bias.get(), row + i, c);
}

void depthwise(const Window& w, const Int8Depthwise& d, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
  const auto left = std::min(w.out_width, (w.padding_x + w.stride_x - 1) / w.stride_x);
  const auto space = w.width - 1 - (w.kernel_width - 1) * w.dilation_x + w.padding_x;
  const auto right = space < 0 ? left : std::max(left, std::min(w.out_width, space / w.stride_x + 1));
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t y = 0; y < w.out_height; ++y)
      for (std::int64_t c = 0; c < w.channels; c += std::int64_t(kLanes)) {
        const std::uint8_t* image = images + b * w.batch_stride;
        const auto row = (b * w.out_height + y) * w.out_width;
        std::int64_t x = 0;
        for (; x < left; ++x) pixels<1>(w, d, image, epilogue, sums, row + x, y, x, c);
        for (; x + 8 <= right; x += 8) pixels<8>(w, d, image, epilogue, sums, row + x, y, x, c);
        for (; x + 2 <= right; x += 2) pixels<2>(w, d, image, epilogue, sums, row + x, y, x, c);
        for (; x < w.out_width; ++x) pixels<1>(w, d, image, epilogue, sums, row + x, y, x, c);
      }
}

const char* name() { return HWY_TARGET == HWY_AVX3_DL ? "VNNI" : HWY_TARGET == HWY_AVX3 ? "AVX-512" : "AVX2"; }
#else
void gemm(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums) {
  gemm_int8_reference(m, rows, epilogue, sums);
}
void depthwise(const Window& w, const Int8Depthwise& d, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
  depthwise_int8_reference(w, d, images, epilogue, sums);
}
const char* name() { return "plain loops"; }
#endif

}  // namespace
}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::deploy::kernels {
namespace {
HWY_EXPORT(gemm);
HWY_EXPORT(depthwise);
HWY_EXPORT(name);
}  // namespace

std::string int8_target() {
  static std::once_flag logged;
  const std::string target = HWY_DYNAMIC_DISPATCH(name)();
  std::call_once(logged, [&] { spdlog::info("8-bit kernels: {}", target); });
  return target;
}

void gemm_int8(const Int8Matrix& right, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(gemm)(right, rows, epilogue, sums);
}

void depthwise_int8(const Window& window, const Int8Depthwise& weights, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
  HWY_DYNAMIC_DISPATCH(depthwise)(window, weights, images, epilogue, sums);
}

}  // namespace preceptor::deploy::kernels
#endif
