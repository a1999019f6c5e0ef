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

/// To the nearest, halves to even; only for values that an int32 holds, or far below.
HWY_INLINE W nearest(V x) {
#if HWY_TARGET == HWY_AVX2
  return W{_mm256_cvtps_epi32(x.raw)};
#else
  return W{_mm512_cvtps_epi32(x.raw)};
#endif
}

/// A tile's sums, [rows][vectors][kLanes], and what they become. Chosen once a call: no branch on what does not change.
struct Tile {
  const std::int32_t* sums;
  const float *scale, *bias;
  int rows, vectors;
  std::int64_t row, column, columns;
  HWY_INLINE V value(int r, int n, V factor, V shift) const {
    return hn::MulAdd(hn::ConvertTo(F(), hn::Load(I(), sums + (r * vectors + n) * int(kLanes))), factor, shift);
  }
};
using Finish = void (*)(const Epilogue&, const Tile&);

template <Activation A, bool kToGrid>
void finish_plain(const Epilogue& e, const Tile& t) {
  const V inverse = set(e.inverse_scale), low = set(float(-e.zero)), high = set(float(255 - e.zero));
  const W zero = hn::Set(I(), e.zero);
  const hn::Rebind<std::uint8_t, F> u8;
  for (int n = 0; n < t.vectors; ++n) {
    const auto column = t.column + n * std::int64_t(kLanes);
    if (column >= t.columns) return;
    const auto count = std::size_t(t.columns - column);
    const V scale = load(t.scale + column), bias = load(t.bias + column);
    for (int r = 0; r < t.rows; ++r) {
      const V y = activate(A, t.value(r, n, scale, bias), 0);
      if constexpr (!kToGrid) {
        store(y, e.out + (t.row + r) * e.out_stride + column, count);
      } else {
        const auto steps = hn::Add(nearest(hn::Min(high, hn::Max(low, hn::Mul(y, inverse)))), zero);
        store_bytes(hn::DemoteTo(u8, steps), e.grid + (t.row + r) * e.grid_stride + column, count);
      }
    }
  }
}

void finish_any(const Epilogue& e, const Tile& t) {
  for (int n = 0; n < t.vectors; ++n) {
    const auto column = t.column + n * std::int64_t(kLanes);
    if (column >= t.columns) return;
    const V scale = load(t.scale + column), bias = load(t.bias + column);
    for (int r = 0; r < t.rows; ++r) finish(e, t.value(r, n, scale, bias), t.row + r, column, std::size_t(t.columns - column));
  }
}

/// call(activation as a constant), for those that are worth code of their own; false for the others.
template <class Call>
bool with_activation(Activation a, const Call& call) {
  switch (a) {
    case Activation::kNone: return call.template operator()<Activation::kNone>(), true;
    case Activation::kRelu: return call.template operator()<Activation::kRelu>(), true;
    case Activation::kRelu6: return call.template operator()<Activation::kRelu6>(), true;
    case Activation::kHardswish: return call.template operator()<Activation::kHardswish>(), true;
    default: return false;
  }
}

Finish finish_of(const Epilogue& e) {
  Finish made = finish_any;
  if (!e.residual && e.after == Activation::kNone && !e.out != !e.grid)
    with_activation(e.before, [&]<Activation A>() { made = e.grid ? finish_plain<A, true> : finish_plain<A, false>; });
  return made;
}

struct Output {
  const Epilogue& epilogue;
  std::int32_t* sums;
  Finish finish = finish_of(epilogue);
  void operator()(const Tile& t) const {
    for (int r = 0; sums && r < t.rows; ++r)
      std::copy_n(t.sums + r * t.vectors * int(kLanes), std::min(t.columns - t.column, std::int64_t(t.vectors) * std::int64_t(kLanes)),
                  sums + (t.row + r) * t.columns + t.column);
    finish(epilogue, t);
  }
};

template <int R, int P>
void tile(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Output& output, std::int64_t first, std::int64_t panel) {
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
  alignas(64) std::int32_t all[R * N * int(kLanes)];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) hn::Store(sums[r][n], I(), all + (r * N + n) * int(kLanes));
  output({all, m.scale.get(), m.bias.get(), R, N, first, panel * kPanel, m.columns});
}

template <int P>
void all_rows(const Int8Matrix& m, const TapRows<std::uint8_t>& rows, const Output& output, std::int64_t panel) {
  std::int64_t row = 0;
  for (; row + kRows <= rows.count; row += kRows) tile<kRows, P>(m, rows, output, row, panel);
  for (; row + 2 <= rows.count; row += 2) tile<2, P>(m, rows, output, row, panel);
  for (; row < rows.count; ++row) tile<1, P>(m, rows, output, row, panel);
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
  W total[N];
  for (int i = 0; i < N; ++i) total[i] = load_i32(d.start.get() + c);
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
      total[i] = hn::Add(total[i], madd(hn::Or(a, hn::ShiftLeft<16>(b)), weights));
    }
  }
  alignas(64) std::int32_t all[N * int(kLanes)];
  for (int i = 0; i < N; ++i) hn::Store(total[i], I(), all + i * int(kLanes));
  output({all, d.scale.get(), d.bias.get(), N, 1, row + x, c, w.channels});
}

#if HWY_TARGET == HWY_AVX3_DL
/// 64 channels at once: four taps' bytes are unpacked into quads, which brings the channels into the order of
/// Int8Depthwise::wide_values; packing the results brings them back.
template <int N, Activation A>
void wide_pixels(const Window& w, const Int8Depthwise& d, const RowTaps& taps, const Epilogue& e, std::int64_t row, std::int64_t x, std::int64_t c) {
  const hn::Repartition<std::uint8_t, I> u8;
  const hn::Repartition<std::int16_t, I> i16;
  W total[N][4];
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < N; ++i) total[i][j] = load_i32(d.wide_start.get() + c + 16 * j);
  const std::int8_t* weights = d.wide_values.get() + c * d.quads() * 4;
  for (std::int64_t tap = 0; tap < taps.count; tap += 4, weights += 256) {
    RowTaps::Pixels from[4];
    for (int k = 0; k < 4; ++k) from[k] = tap + k < taps.count ? taps.of<N>(w, tap + k, x, c) : RowTaps::Pixels{taps.outside, 0};
    const W columns[4] = {load_i32(weights), load_i32(weights + 64), load_i32(weights + 128), load_i32(weights + 192)};
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const auto bytes = [&](int k) { return hn::LoadU(u8, from[k].first + i * from[k].step); };
      const auto a = bytes(0), b = bytes(1), f = bytes(2), g = bytes(3);
      const auto low = hn::BitCast(i16, hn::InterleaveLower(u8, a, b)), high = hn::BitCast(i16, hn::InterleaveUpper(u8, a, b));
      const auto low2 = hn::BitCast(i16, hn::InterleaveLower(u8, f, g)), high2 = hn::BitCast(i16, hn::InterleaveUpper(u8, f, g));
      const W quads[4] = {hn::BitCast(I(), hn::InterleaveLower(i16, low, low2)), hn::BitCast(I(), hn::InterleaveUpper(i16, low, low2)),
                          hn::BitCast(I(), hn::InterleaveLower(i16, high, high2)), hn::BitCast(I(), hn::InterleaveUpper(i16, high, high2))};
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) asm("vpdpbusd %2, %1, %0" : "+v"(total[i][j].raw) : "v"(quads[j].raw), "v"(columns[j].raw));
    }
  }
  const auto count = std::size_t(w.channels - c);
  const V inverse = set(e.inverse_scale), top = set(float(255 - e.zero));
  const auto zero = hn::Set(i16, std::int16_t(e.zero));
#pragma GCC unroll 4
  for (int i = 0; i < N; ++i) {
    V y[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      y[j] = activate(A, hn::MulAdd(hn::ConvertTo(F(), total[i][j]), load(d.wide_scale.get() + c + 16 * j), load(d.wide_bias.get() + c + 16 * j)), 0);
    if (e.grid) {
      // From below the packing clamps: what no int32 holds is the lowest of them.
      const auto steps = [&](int j) { return nearest(hn::Min(top, hn::Mul(y[j], inverse))).raw; };
      const auto first = _mm512_adds_epi16(_mm512_packs_epi32(steps(0), steps(1)), zero.raw);
      const auto second = _mm512_adds_epi16(_mm512_packs_epi32(steps(2), steps(3)), zero.raw);
      const hn::Vec<decltype(u8)> packed{_mm512_packus_epi16(first, second)};
      std::uint8_t* to = e.grid + (row + x + i) * e.grid_stride + c;
      if (count >= 64) hn::StoreU(packed, u8, to);
      else hn::BlendedStore(packed, hn::FirstN(u8, count), u8, to);
    }
    if (e.out) {
      float* to = e.out + (row + x + i) * e.out_stride + c;
      const auto a = _mm512_shuffle_f32x4(y[0].raw, y[1].raw, 0x44), b = _mm512_shuffle_f32x4(y[0].raw, y[1].raw, 0xEE);
      const auto f = _mm512_shuffle_f32x4(y[2].raw, y[3].raw, 0x44), g = _mm512_shuffle_f32x4(y[2].raw, y[3].raw, 0xEE);
      const V natural[4] = {V{_mm512_shuffle_f32x4(a, f, 0x88)}, V{_mm512_shuffle_f32x4(a, f, 0xDD)}, V{_mm512_shuffle_f32x4(b, g, 0x88)},
                            V{_mm512_shuffle_f32x4(b, g, 0xDD)}};
      for (std::size_t j = 0; j < 4 && 16 * j < count; ++j) store(natural[j], to + 16 * j, count - 16 * j);
    }
  }
}
#endif

void depthwise(const Window& w, const Int8Depthwise& d, const std::uint8_t* images, const Epilogue& epilogue, std::int32_t* sums) {
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
      std::int64_t c = 0;
#if HWY_TARGET == HWY_AVX3_DL
      if (!sums && !epilogue.residual && epilogue.after == Activation::kNone)
        with_activation(epilogue.before, [&]<Activation A>() {
          for (; c + 32 < w.channels; c += 64) {
            std::int64_t x = 0;
            for (; x < left; ++x) wide_pixels<1, A>(w, d, taps, epilogue, row, x, c);
            for (; x + 4 <= right; x += 4) wide_pixels<4, A>(w, d, taps, epilogue, row, x, c);
            for (; x + 2 <= right; x += 2) wide_pixels<2, A>(w, d, taps, epilogue, row, x, c);
            for (; x < w.out_width; ++x) wide_pixels<1, A>(w, d, taps, epilogue, row, x, c);
          }
        });
#endif
      for (; c < w.channels; c += std::int64_t(kLanes)) {
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
