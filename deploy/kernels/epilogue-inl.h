// Activations and the epilogue for one vector of channels, compiled once for each instruction set: hence the guard that toggles.
#if defined(PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#undef PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#else
#define PRECEPTOR_DEPLOY_KERNELS_EPILOGUE_INL_H_
#endif

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

/// R rows from `row` on times N vectors from `column` on.
template <int R, int N>
HWY_INLINE void finish(const Epilogue& e, V (&y)[R][N], std::int64_t row, std::int64_t column, std::int64_t columns) {
  activate(e.before, y, e.slope);
  if (e.residual) {
    const float* summand = e.residual + row * e.residual_stride + column;
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) y[r][n] = hn::Add(y[r][n], load(summand + r * e.residual_stride + n * std::int64_t(kLanes)));
    activate(e.after, y, e.slope);
  }
  const auto count = columns - column;
  if (e.out && !e.grid && count >= N * std::int64_t(kLanes)) {
    float* out = e.out + row * e.out_stride + column;
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) math::store(y[r][n], out + r * e.out_stride + n * std::int64_t(kLanes));
    return;
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    const auto left = count - n * std::int64_t(kLanes), at = column + n * std::int64_t(kLanes);
    if (left <= 0) return;
#pragma GCC unroll 32
    for (int r = 0; r < R; ++r) {
      if (e.out) store(y[r][n], e.out + (row + r) * e.out_stride + at, std::size_t(left));
      if (e.grid) store_grid(y[r][n], e.inverse_scale, e.zero, e.grid + (row + r) * e.grid_stride + at, std::size_t(left));
    }
  }
}

}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // the toggling guard
