#include "deploy/kernels/int8.h"

#include "deploy/kernels/simd_targets.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <mutex>
#include <utility>

#include "common/log.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deploy/kernels/int8.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "deploy/kernels/slide-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {
namespace {

// x86 has instructions for sums of products of bytes; elsewhere the reference runs.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
using W = hn::Vec<I>;
constexpr int kVectors = int(kPanel / std::int64_t(kLanes));  // of a panel
// Tiles as in gemm.cpp; 16-bit weights take two registers.
constexpr int kMaxPanels = kLanes == 16 ? 4 : 1;
constexpr int rows_of(int panels) { return HWY_TARGET == HWY_AVX2 ? 4 : HWY_TARGET == HWY_AVX3 ? (panels <= 2 ? 8 : 4) : panels <= 2 ? 12 : 6; }

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

/// To the nearest, halves to even; only for values that an int32 holds, or far below.
HWY_INLINE W nearest(V x) {
#if HWY_TARGET == HWY_AVX2
  return W{_mm256_cvtps_epi32(x.raw)};
#else
  return W{_mm512_cvtps_epi32(x.raw)};
#endif
}

/// What becomes of sums.
struct Output {
  const Epilogue& epilogue;
  std::int32_t* sums;  ///< null, or who wants them as they are: [rows, columns]

  /// R rows from `row` on times N vectors from `column` on.
  template <int R, int N>
  HWY_INLINE void operator()(const W (&from)[R][N], const float* scale, const float* bias, std::int64_t row, std::int64_t column, std::int64_t columns) const {
    constexpr std::int64_t kStep = std::int64_t(kLanes);
    if (HWY_UNLIKELY(sums != nullptr))
      for (int r = 0; r < R; ++r)
        for (int n = 0; n < N && column + n * kStep < columns; ++n) {
          alignas(64) std::int32_t lanes[kLanes];
          hn::Store(from[r][n], I(), lanes);
          std::copy_n(lanes, std::min(columns - column - n * kStep, kStep), sums + (row + r) * columns + column + n * kStep);
        }
    V y[R][N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const V factor = load(scale + column + n * kStep), shift = load(bias + column + n * kStep);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) y[r][n] = hn::MulAdd(hn::ConvertTo(F(), from[r][n]), factor, shift);
    }
    finish(epilogue, y, row, column, columns);
  }
};

template <int R, int P>
void tile(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Output& output, std::int64_t first, std::int64_t panel) {
  constexpr int N = P * kVectors;
  const auto quads = m.quads(), stride = m.taps * quads * kPanel * 4;
  const std::int8_t* right = m.values.get() + panel * stride;
  W sums[R][N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sums[r][n] = load_i32(m.start.get() + panel * kPanel + n * std::int64_t(kLanes));
  const std::int32_t* offsets = rows.offsets + first * m.taps;
  for (std::int64_t tap = 0; tap < m.taps; ++tap) {
    const std::uint8_t* left[R];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const auto offset = offsets[r * m.taps + tap];
      left[r] = offset == kOutside ? rows.outside : rows.base + offset;
    }
    for (std::int64_t k = 0; k < quads; ++k, right += kPanel * 4) {
      Weights weights[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) weights[n] = Weights(right + n / kVectors * stride + n % kVectors * std::int64_t(kLanes) * 4);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const Quad x(left[r] + 4 * k);
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sums[r][n] = multiply_add(sums[r][n], x, weights[n]);
      }
    }
  }
  output(sums, m.scale.get(), m.bias.get(), first, panel * kPanel, m.columns);
}

template <int P>
void all_rows(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Output& output, std::int64_t panel) {
  using Tile = void (*)(const Int8Matrix&, const TapRows<std::uint8_t>&, const Output&, std::int64_t, std::int64_t);
  constexpr int kRows = rows_of(P);
  static constexpr auto kTiles = []<int... R>(std::integer_sequence<int, R...>) { return std::array<Tile, sizeof...(R)>{tile<R + 1, P>...}; }(
      std::make_integer_sequence<int, kRows>());
  const auto tiles = (rows.count + kRows - 1) / kRows;
  for (std::int64_t i = 0; i < tiles; ++i) {
    const auto row = rows.count * i / tiles;
    kTiles[std::size_t(rows.count * (i + 1) / tiles - row - 1)](m, rows, output, row, panel);
  }
}

void gemm(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Epilogue& epilogue, std::int32_t* sums) {
  const Output output{epilogue, sums};
  const auto all = panels(m.columns), groups = (all + kMaxPanels - 1) / kMaxPanels;
  for (std::int64_t group = 0; group < groups; ++group) {
    const auto panel = all * group / groups;
    switch (all * (group + 1) / groups - panel) {
      case 1: all_rows<1>(m, rows, output, panel); break;
#if HWY_TARGET != HWY_AVX2
      case 2: all_rows<2>(m, rows, output, panel); break;
      case 3: all_rows<3>(m, rows, output, panel); break;
      case 4: all_rows<4>(m, rows, output, panel); break;
#endif
    }
  }
}

constexpr std::int64_t kMaxTaps = 128;

/// Where the taps of one row of outputs find their pixels: of the output at 0, null if the row lies outside.
struct RowTaps {
  const std::uint8_t* at[kMaxTaps];
  std::int64_t x[kMaxTaps], count, step;
  const std::uint8_t* outside;  ///< a vector of the input's zero

  RowTaps(const Window& w, const std::uint8_t* image, std::int64_t y, const std::uint8_t* zeros)
      : count(w.kernel_height * w.kernel_width), step(w.stride_x * w.pixel_stride), outside(zeros) {
    std::int64_t tap = 0;
    for (std::int64_t ky = 0; ky < w.kernel_height; ++ky) {
      const auto iy = y * w.stride_y - w.padding_y + ky * w.dilation_y;
      for (std::int64_t kx = 0; kx < w.kernel_width; ++kx, ++tap) {
        x[tap] = kx * w.dilation_x - w.padding_x;
        at[tap] = iy >= 0 && iy < w.height ? image + iy * w.row_stride + x[tap] * w.pixel_stride : nullptr;
      }
    }
  }
  struct Pixels {
    const std::uint8_t* first;
    std::int64_t step;
  };
  /// Channels from c on of the outputs from ox on. Of several all windows lie inside from left to right: only one alone may
  /// reach over an edge.
  template <int N>
  HWY_INLINE Pixels of(const Window& w, std::int64_t tap, std::int64_t ox, std::int64_t c) const {
    const auto ix = ox * w.stride_x + x[tap];
    if (!at[tap] || (N == 1 && (ix < 0 || ix >= w.width))) return {outside, 0};
    return {at[tap] + ox * step + c, step};
  }
};

/// Eight pixels of a row share each load of a weight.
template <int N>
void pixels(const Window& w, const Int8Depthwise& d, const RowTaps& taps, const Output& output, std::int64_t row, std::int64_t x, std::int64_t c) {
  const hn::Rebind<std::uint8_t, F> u8;
  const hn::Rebind<std::int16_t, F> i16;
  W total[N][1];
#pragma GCC unroll 8
  for (int i = 0; i < N; ++i) total[i][0] = load_i32(d.start.get() + c);
  // Two taps at a time, as pairs of 16-bit values: one instruction multiplies and adds them.
  const auto weight_of = [&](std::int64_t tap) { return hn::PromoteTo(I(), hn::LoadU(i16, d.values.get() + tap * d.stride() + c)); };
  for (std::int64_t tap = 0; tap < taps.count; tap += 2) {
    const bool pair = tap + 1 < taps.count;
    const W low = hn::And(weight_of(tap), hn::Set(I(), 0xFFFF));
    const W weights = pair ? hn::Or(low, hn::ShiftLeft<16>(weight_of(tap + 1))) : low;
    const auto first = taps.of<N>(w, tap, x, c), second = pair ? taps.of<N>(w, tap + 1, x, c) : first;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
      const W a = hn::PromoteTo(I(), hn::LoadU(u8, first.first + i * first.step)), b = hn::PromoteTo(I(), hn::LoadU(u8, second.first + i * second.step));
      total[i][0] = hn::Add(total[i][0], madd(hn::Or(a, hn::ShiftLeft<16>(b)), weights));
    }
  }
  output(total, d.scale.get(), d.bias.get(), row + x, c, w.channels);
}

/// 3×3 as of floats: sums of so few bytes are whole numbers below 2^24, which a float holds exactly.
void slide_3x3(const Window& w, const Int8Depthwise& d, const std::uint8_t* images, const Epilogue& epilogue) {
  const hn::Rebind<std::uint8_t, F> u8;
  const hn::Rebind<std::int16_t, F> i16;
  alignas(64) std::uint8_t zeros[64];
  std::fill_n(zeros, 64, std::uint8_t(d.zero));
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t c = 0; c < w.channels; c += std::int64_t(kLanes)) {
      V weight[9];
      for (int t = 0; t < 9; ++t) weight[t] = hn::ConvertTo(F(), hn::PromoteTo(I(), hn::LoadU(i16, d.values.get() + t * d.stride() + c)));
      const V scale = load(d.scale.get() + c), bias = load(d.bias.get() + c);
      slide(w, images + b * w.batch_stride + c, zeros, b * w.out_height * w.out_width, c, hn::ConvertTo(F(), load_i32(d.start.get() + c)), weight,
            [=](const std::uint8_t* p) HWY_ATTR __attribute__((always_inline)) { return hn::ConvertTo(F(), hn::PromoteTo(I(), hn::LoadU(u8, p))); },
            [=](V sum) HWY_ATTR __attribute__((always_inline)) { return hn::MulAdd(sum, scale, bias); }, epilogue);
    }
}

void depthwise(const Window& w, const Int8Depthwise& d, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
  if (!sums && slides(w)) return slide_3x3(w, d, images, epilogue);
  if (w.kernel_height * w.kernel_width > kMaxTaps) return depthwise_int8_reference(w, d, images, epilogue, sums);
  const auto left = std::min(w.out_width, (w.padding_x + w.stride_x - 1) / w.stride_x);
  const auto space = w.width - 1 - (w.kernel_width - 1) * w.dilation_x + w.padding_x;
  const auto right = space < 0 ? left : std::max(left, std::min(w.out_width, space / w.stride_x + 1));
  std::uint8_t zeros[64];
  std::fill_n(zeros, 64, std::uint8_t(d.zero));
  const Output output{epilogue, sums};
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t y = 0; y < w.out_height; ++y) {
      const RowTaps taps(w, images + b * w.batch_stride, y, zeros);
      const auto row = (b * w.out_height + y) * w.out_width;
      for (std::int64_t c = 0; c < w.channels; c += std::int64_t(kLanes)) {
        std::int64_t x = 0;
        for (; x < left; ++x) pixels<1>(w, d, taps, output, row, x, c);
        for (; x + 8 <= right; x += 8) pixels<8>(w, d, taps, output, row, x, c);
        for (; x + 2 <= right; x += 2) pixels<2>(w, d, taps, output, row, x, c);
        for (; x < w.out_width; ++x) pixels<1>(w, d, taps, output, row, x, c);
      }
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
