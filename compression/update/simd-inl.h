// Vectors of floats and the sums over them, compiled once for each instruction set: Highway includes
// the sources again with another HWY_TARGET each time, hence the guard that toggles.
#if defined(PRECEPTOR_COMPRESSION_UPDATE_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef PRECEPTOR_COMPRESSION_UPDATE_SIMD_INL_H_
#undef PRECEPTOR_COMPRESSION_UPDATE_SIMD_INL_H_
#else
#define PRECEPTOR_COMPRESSION_UPDATE_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

HWY_BEFORE_NAMESPACE();
namespace preceptor::compression::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using F = hn::CappedTag<float, 16>;
using U = hn::RebindToUnsigned<F>;
using V = hn::Vec<F>;
constexpr std::size_t kLanes = hn::MaxLanes(F());
/// Values that a step works on, in kSplit vectors: the same on every instruction set, so that sums
/// are, too. Lane j of a sum adds values j, j + 16, ….
constexpr std::size_t kStep = 16, kSplit = kStep / kLanes;

HWY_INLINE V load(const float* p) { return hn::LoadU(F(), p); }
HWY_INLINE void store(V x, float* p) { hn::StoreU(x, F(), p); }
HWY_INLINE V set(float x) { return hn::Set(F(), x); }

/// body(p, count) for 16 values at a time; the last ones come in a copy that zeros fill up.
template <class Body>
HWY_INLINE void for_steps(const float* x, std::size_t n, const Body& body) {
  std::size_t i = 0;
  for (; i + kStep <= n; i += kStep) body(x + i, i);
  if (i == n) return;
  float last[kStep] = {};
  std::memcpy(last, x + i, (n - i) * sizeof(float));
  body(last, i);
}

/// Sixteen sums in float, added up in double from lane 0 on.
struct Sums {
  V lanes[kSplit];
  HWY_INLINE Sums() {
    for (auto& lane : lanes) lane = hn::Zero(F());
  }
  HWY_INLINE void add(std::size_t part, V x) { lanes[part] = hn::Add(lanes[part], x); }
  HWY_INLINE double total() const {
    float all[kStep];
    for (std::size_t part = 0; part < kSplit; ++part) store(lanes[part], all + part * kLanes);
    double sum = 0;
    for (const double x : all) sum += x;
    return sum;
  }
};

/// Bit j: lane j of the mask.
template <class Mask>
HWY_INLINE std::uint32_t bits_of(Mask mask) {
  std::uint8_t bytes[8] = {};
  hn::StoreMaskBits(F(), mask, bytes);
  std::conditional_t<(kLanes > 8), std::uint16_t, std::uint8_t> bits;  // as wide as was stored
  std::memcpy(&bits, bytes, sizeof bits);
  return bits;
}

/// Lane j: bit `first + j` of `bits` at bit 31, all else 0.
HWY_INLINE hn::Vec<U> lifted(std::uint32_t bits, std::size_t first) {
  const auto up = hn::Sub(hn::Set(U(), std::uint32_t(31 - first)), hn::Iota(U(), 0));
  return hn::And(hn::Shl(hn::Set(U(), bits), up), hn::Set(U(), 0x80000000u));
}

}  // namespace preceptor::compression::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
