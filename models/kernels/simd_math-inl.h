// Vectors of channels and the functions that the kernels need of them, compiled once for each instruction set: Highway
// includes the sources again with another HWY_TARGET each time, hence the guard that toggles.
#if defined(PRECEPTOR_MODELS_KERNELS_SIMD_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRECEPTOR_MODELS_KERNELS_SIMD_MATH_INL_H_
#undef PRECEPTOR_MODELS_KERNELS_SIMD_MATH_INL_H_
#else
#define PRECEPTOR_MODELS_KERNELS_SIMD_MATH_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace preceptor::models::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, 16>;  // kPad of the sources: a vector never straddles the padding of a row
using V = hn::Vec<F>;
constexpr std::size_t kLanes = hn::MaxLanes(F());

HWY_INLINE V set(float x) { return hn::Set(F(), x); }
HWY_INLINE V load(const float* p) { return hn::LoadU(F(), p); }
HWY_INLINE void store(V x, float* p) { hn::StoreU(x, F(), p); }

/// The first `count` lanes; the others are 0 and are not read.
HWY_INLINE V load(const float* p, std::size_t count) {
  if (HWY_LIKELY(count >= kLanes)) return load(p);
  alignas(64) float lanes[kLanes] = {};
  for (std::size_t i = 0; i < count; ++i) lanes[i] = p[i];
  return load(lanes);
}
HWY_INLINE void store(V x, float* p, std::size_t count) {
  if (HWY_LIKELY(count >= kLanes)) return store(x, p);
  alignas(64) float lanes[kLanes];
  store(x, lanes);
  for (std::size_t i = 0; i < count; ++i) p[i] = lanes[i];
}

/// 2^x for x ≤ 127, relative error 2e-7. Exactly 1 at 0, so that thousands of steps with hardly any decay do not drift.
/// Below −126 as at −126: no subnormal numbers. NaN stays (Max returns its second argument then).
HWY_INLINE V exp2(V x) {
  const hn::RebindToSigned<F> i32;
  x = hn::Max(set(-126.f), x);
  const V shifted = hn::Add(x, set(0x1.8p23f));  // rounds to an integer, which is left in the low bits
  const V r = hn::Sub(x, hn::Sub(shifted, set(0x1.8p23f)));
  V p = hn::MulAdd(r, set(0.00132647272f), set(0.00967151264f));  // minimax of (2^r − 1)/r over |r| ≤ ½
  p = hn::MulAdd(r, p, set(0.0555073374f));
  p = hn::MulAdd(r, p, set(0.240222421f));
  p = hn::MulAdd(r, p, set(0.693146978f));
  p = hn::MulAdd(r, p, set(1.f));
  return hn::BitCast(F(), hn::Add(hn::BitCast(i32, p), hn::ShiftLeft<23>(hn::BitCast(i32, shifted))));
}

HWY_INLINE V exp(V x) { return exp2(hn::Mul(x, set(1.44269504f))); }

struct Softplus {
  V value, slope;
};

/// log(1 + e^z) and its derivative, the sigmoid; relative error 5e-7 both, for any z.
HWY_INLINE Softplus softplus(V z) {
  const V one = set(1.f), x = exp(hn::Neg(hn::Abs(z)));
  const V s = hn::Div(x, hn::Add(x, set(2.f))), s2 = hn::Mul(s, s);  // log(1 + x) = 2 atanh(x / (2 + x))
  V p = hn::MulAdd(s2, set(0.281783353f), set(0.279606027f));        // minimax of 2 atanh(s)/s over s ≤ ⅓
  p = hn::MulAdd(s2, p, set(0.400249103f));
  p = hn::MulAdd(s2, p, set(0.666663147f));
  p = hn::MulAdd(s2, p, set(2.f));
  const V sigmoid = hn::Div(one, hn::Add(one, x));  // of |z|
  return {hn::MulAdd(s, p, hn::Max(hn::Zero(F()), z)), hn::IfThenElse(hn::Lt(z, hn::Zero(F())), hn::Mul(x, sigmoid), sigmoid)};
}

/// Sums over the lanes of R consecutive vectors, R a power of two up to kLanes; with R = kLanes, lane i is the sum of vector i.
template <std::size_t R = kLanes>
HWY_INLINE V sum_rows(const float* rows) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (R > 1) {
    const V low = sum_rows<R / 2>(rows), high = sum_rows<R / 2>(rows + R / 2 * kLanes);
    return hn::Add(hn::ConcatEven(F(), high, low), hn::ConcatOdd(F(), high, low));
  }
#endif
  return load(rows);
}

}  // namespace preceptor::models::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // the toggling guard
