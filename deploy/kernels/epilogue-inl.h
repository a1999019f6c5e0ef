// Activations and the epilogue for one vector of channels, compiled once for each instruction set: hence the guard that toggles.
#if defined(PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#undef PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#else
#define PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#endif

#include <algorithm>
#include <cstring>

#include "deploy/kernels/epilogue.h"
#include "models/kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
namespace math = models::kernels::HWY_NAMESPACE;
using math::F;
using math::kLanes;
using math::load;
using math::set;
using math::V;
using I = hn::RebindToSigned<F>;

/// The first `count` lanes; the others in memory stay.
HWY_INLINE void store(V x, float* p, std::size_t count) {
  if (HWY_LIKELY(count >= kLanes)) return hn::StoreU(x, F(), p);
  hn::BlendedStore(x, hn::FirstN(F(), count), F(), p);
}

HWY_INLINE V sigmoid(V x) { return hn::Div(set(1.f), hn::Add(set(1.f), math::exp(hn::Neg(hn::Max(set(-80.f), x))))); }

/// Error 2e-7 absolute (Abramowitz and Stegun 7.1.26).
HWY_INLINE V erf(V x) {
  const V a = hn::Abs(x), t = hn::Div(set(1.f), hn::MulAdd(set(0.3275911f), a, set(1.f)));
  V p = hn::MulAdd(t, set(1.061405429f), set(-1.453152027f));
  p = hn::MulAdd(t, p, set(1.421413741f));
  p = hn::MulAdd(t, p, set(-0.284496736f));
  p = hn::MulAdd(t, p, set(0.254829592f));
  return hn::CopySign(hn::NegMulAdd(hn::Mul(p, t), math::exp(hn::Neg(hn::Mul(a, a))), set(1.f)), x);
}

HWY_INLINE V activate(Activation how, V x, float slope) {
  const V zero = hn::Zero(F());
  switch (how) {
    case Activation::kNone: return x;
    case Activation::kRelu: return hn::Max(zero, x);
    case Activation::kRelu6: return hn::Min(set(6.f), hn::Max(zero, x));
    case Activation::kSilu: return hn::Mul(x, sigmoid(x));
    case Activation::kSigmoid: return sigmoid(x);
    case Activation::kHardsigmoid: return hn::Mul(hn::Min(set(6.f), hn::Max(zero, hn::Add(x, set(3.f)))), set(1.f / 6));
    case Activation::kHardswish: return hn::Mul(hn::Mul(x, hn::Min(set(6.f), hn::Max(zero, hn::Add(x, set(3.f))))), set(1.f / 6));
    case Activation::kGelu: return hn::Mul(hn::Mul(set(0.5f), x), hn::Add(set(1.f), erf(hn::Mul(x, set(0.70710678f)))));
    case Activation::kLeakyRelu: return hn::IfThenElse(hn::Lt(x, zero), hn::Mul(x, set(slope)), x);
  }
  return x;
}

/// The first `count` of a vector's bytes; the others in memory stay.
HWY_INLINE void store_bytes(hn::Vec<hn::Rebind<std::uint8_t, F>> bytes, std::uint8_t* p, std::size_t count) {
  const hn::Rebind<std::uint8_t, F> u8;
  if (HWY_LIKELY(count >= kLanes)) return hn::StoreU(bytes, u8, p);
#if HWY_TARGET <= HWY_AVX3
  hn::BlendedStore(bytes, hn::FirstN(u8, count), u8, p);
#else
  alignas(16) std::uint8_t all[16];
  hn::StoreU(bytes, u8, all);
  for (std::size_t i = 0; i < count; ++i) p[i] = all[i];
#endif
}

/// The grid's steps of `count` values.
HWY_INLINE void store_grid(V y, float inverse_scale, std::int32_t zero, std::uint8_t* p, std::size_t count) {
  // Clamped before it is rounded: the bounds are whole numbers, so the order does not matter, and nothing overflows.
  const V steps = hn::Min(set(float(255 - zero)), hn::Max(set(float(-zero)), hn::Mul(y, set(inverse_scale))));
  const auto whole = hn::Add(hn::NearestInt(steps), hn::Set(I(), zero));
  store_bytes(hn::DemoteTo(hn::Rebind<std::uint8_t, F>(), whole), p, count);
}

/// Row `row`, columns from `column` on. Reads whole vectors of the residual: what lies behind a tensor may be read.
HWY_INLINE void finish(const Epilogue& e, V y, std::int64_t row, std::int64_t column, std::size_t count) {
  y = activate(e.before, y, e.slope);
  if (e.residual) y = hn::Add(y, load(e.residual + row * e.residual_stride + column));
  y = activate(e.after, y, e.slope);
  if (e.out) store(y, e.out + row * e.out_stride + column, count);
  if (e.grid) store_grid(y, e.inverse_scale, e.zero, e.grid + row * e.grid_stride + column, count);
}

/// Not inlined: a tile that ends so has time for a call.
inline HWY_NOINLINE V activate_any(Activation how, V x, float slope) { return activate(how, x, slope); }

/// activate() of R rows of N vectors in registers, with one branch for all.
template <int R, int N>
HWY_INLINE void activate(Activation how, V (&x)[R][N], float slope) {
  const auto each = [&](const auto& f) {
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) x[r][n] = f(x[r][n]);
  };
  switch (how) {
    case Activation::kNone: return;
    case Activation::kRelu: return each([](V v) HWY_ATTR { return activate(Activation::kRelu, v, 0); });
    case Activation::kRelu6: return each([](V v) HWY_ATTR { return activate(Activation::kRelu6, v, 0); });
    case Activation::kHardswish: return each([](V v) HWY_ATTR { return activate(Activation::kHardswish, v, 0); });
    default: return each([=](V v) HWY_ATTR { return activate_any(how, v, slope); });
  }
}

#if HWY_TARGET <= HWY_AVX3
/// Four vectors' bytes, one after the other. Packing clamps; what no int32 holds, far below, is the lowest of them.
HWY_INLINE __m512i grids_of(float inverse_scale, std::int32_t zero_step, V a, V b, V c, V d) {
  const V top = set(float(255 - zero_step)), inverse = set(inverse_scale);
  const auto steps = [&](V x) HWY_ATTR { return _mm512_cvtps_epi32(hn::Min(top, hn::Mul(x, inverse)).raw); };
  const __m512i zero = _mm512_set1_epi16(std::int16_t(zero_step));
  const __m512i first = _mm512_adds_epi16(_mm512_packs_epi32(steps(a), steps(b)), zero), second = _mm512_adds_epi16(_mm512_packs_epi32(steps(c), steps(d)), zero);
  // Packing goes by lanes of 128 bits: four bytes of a, of b, of c, of d.
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), _mm512_packus_epi16(first, second));
}

template <int kLane>
HWY_INLINE void store_lane(__m512i bytes, std::uint8_t* to, std::int64_t count) {
  const __m128i lane = _mm512_extracti32x4_epi32(bytes, kLane);
  if (HWY_LIKELY(count >= 16)) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), lane);
  else if (count > 0) hn::BlendedStore(hn::Vec<hn::Rebind<std::uint8_t, F>>{lane}, hn::FirstN(hn::Rebind<std::uint8_t, F>(), std::size_t(count)), hn::Rebind<std::uint8_t, F>(), to);
}
#endif

/// The grids of R rows of N vectors, of which `count` values a row are wanted.
template <int R, int N>
HWY_INLINE void store_grids(const Epilogue& e, const V (&y)[R][N], std::int64_t row, std::int64_t column, std::int64_t count, std::int64_t apart) {
  std::uint8_t* const first = e.grid + row * e.grid_stride + column;
  const auto at = [&](int v) HWY_ATTR { return first + v / N * apart * e.grid_stride + v % N * std::int64_t(kLanes); };
  const auto left = [&](int v) HWY_ATTR { return count - v % N * std::int64_t(kLanes); };
#if HWY_TARGET <= HWY_AVX3
  constexpr int kAll = R * N;
#pragma GCC unroll 16
  for (int v = 0; v < kAll; v += 4) {
    const auto value = [&](int i) HWY_ATTR __attribute__((always_inline)) { return y[std::min(v + i, kAll - 1) / N][std::min(v + i, kAll - 1) % N]; };
    const __m512i bytes = grids_of(e.inverse_scale, e.zero, value(0), value(1), value(2), value(3));
    if (N == 4 && count >= 64) {
      _mm512_storeu_si512(at(v), bytes);
    } else if (N == 2 && count >= 32) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at(v)), _mm512_castsi512_si256(bytes));
      if (v + 2 < kAll) _mm256_storeu_si256(reinterpret_cast<__m256i*>(at(v + 2)), _mm512_extracti64x4_epi64(bytes, 1));
    } else {
      store_lane<0>(bytes, at(v), left(v));
      if (v + 1 < kAll) store_lane<1>(bytes, at(v + 1), left(v + 1));
      if (v + 2 < kAll) store_lane<2>(bytes, at(v + 2), left(v + 2));
      if (v + 3 < kAll) store_lane<3>(bytes, at(v + 3), left(v + 3));
    }
  }
#else
#pragma GCC unroll 16
  for (int v = 0; v < R * N; ++v)
    if (left(v) > 0) store_grid(y[v / N][v % N], e.inverse_scale, e.zero, at(v), std::size_t(left(v)));
#endif
}

/// R rows, `apart`, from `row` on times N vectors from `column` on.
template <int R, int N>
HWY_INLINE void finish(const Epilogue& e, V (&y)[R][N], std::int64_t row, std::int64_t column, std::int64_t columns, std::int64_t apart = 1) {
  activate(e.before, y, e.slope);
  if (e.residual) {
    const float* summand = e.residual + row * e.residual_stride + column;
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) y[r][n] = hn::Add(y[r][n], load(summand + r * apart * e.residual_stride + n * std::int64_t(kLanes)));
    activate(e.after, y, e.slope);
  }
  const auto count = columns - column;
  const bool whole = count >= N * std::int64_t(kLanes);
  if (e.out) {
    float* out = e.out + row * e.out_stride + column;
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        float* to = out + r * apart * e.out_stride + n * std::int64_t(kLanes);
        if (HWY_LIKELY(whole)) math::store(y[r][n], to);
        else if (count > n * std::int64_t(kLanes)) store(y[r][n], to, std::size_t(count - n * std::int64_t(kLanes)));
      }
  }
  if (e.grid) store_grids(e, y, row, column, count, apart);
}

}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // the toggling guard
