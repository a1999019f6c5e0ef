#include "compression/update/hadamard.h"

#include "common/simd_targets.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/update/hadamard.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "compression/update/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::compression::HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
/// The level of one stride below the vector's length: (a, b) becomes (a + b, a - b).
template <std::size_t kStride>
HWY_INLINE V level(V v) {
  if constexpr (kStride < kLanes) {
    const auto lane = hn::Iota(U(), 0), stride = hn::Set(U(), std::uint32_t(kStride));
    const V other = hn::TableLookupLanes(v, hn::IndicesFromVec(F(), hn::Xor(lane, stride)));
    const auto second = hn::And(lane, stride);  // to bit 31: these lanes are subtracted
    const auto sign = hn::ShiftLeft<31 - std::countr_zero(kStride)>(second);
    return hn::Add(other, hn::Xor(v, hn::BitCast(F(), sign)));
  }
  return v;
}
HWY_INLINE V levels(V v) { return level<8>(level<4>(level<2>(level<1>(v)))); }
#else
HWY_INLINE V levels(V v) { return v; }
#endif

HWY_INLINE void pair(V& a, V& b) {
  const V sum = hn::Add(a, b);
  b = hn::Sub(a, b);
  a = sum;
}

/// Three levels: of strides s, 2s and 4s, eight vectors at a time. First also those inside a vector.
template <bool kFirst>
HWY_INLINE void three_levels(float* x, std::size_t n, std::size_t s) {
  for (std::size_t block = 0; block < n; block += 8 * s) {
    for (std::size_t i = block; i < block + s; i += kLanes) {
      V a = load(x + i), b = load(x + i + s);
      V c = load(x + i + 2 * s), d = load(x + i + 3 * s);
      V e = load(x + i + 4 * s), f = load(x + i + 5 * s);
      V g = load(x + i + 6 * s), h = load(x + i + 7 * s);
      if constexpr (kFirst) {
        a = levels(a), b = levels(b), c = levels(c), d = levels(d);
        e = levels(e), f = levels(f), g = levels(g), h = levels(h);
      }
      pair(a, b), pair(c, d), pair(e, f), pair(g, h);
      pair(a, c), pair(b, d), pair(e, g), pair(f, h);
      pair(a, e), pair(b, f), pair(c, g), pair(d, h);
      store(a, x + i), store(b, x + i + s);
      store(c, x + i + 2 * s), store(d, x + i + 3 * s);
      store(e, x + i + 4 * s), store(f, x + i + 5 * s);
      store(g, x + i + 6 * s), store(h, x + i + 7 * s);
    }
  }
}

HWY_INLINE void one_level(float* x, std::size_t n, std::size_t s) {
  for (std::size_t block = 0; block < n; block += 2 * s) {
    for (std::size_t i = block; i < block + s; i += kLanes) {
      V a = load(x + i), b = load(x + i + s);
      pair(a, b);
      store(a, x + i), store(b, x + i + s);
    }
  }
}

void hadamard(float* x, std::size_t n) {
  if (n < 8 * kLanes) {
    for (std::size_t s = 1; s < n; s *= 2)
      for (std::size_t i = 0; i < n; ++i)
        if ((i & s) == 0) {
          const auto a = x[i], b = x[i + s];
          x[i] = a + b, x[i + s] = a - b;
        }
    return;
  }
  three_levels<true>(x, n, kLanes);
  auto s = 8 * kLanes;
  for (; 8 * s <= n; s *= 8) three_levels<false>(x, n, s);
  for (; s < n; s *= 2) one_level(x, n, s);
}

/// x[i] = ±x[i] * scale.
void flip(float* x, std::size_t n, const std::uint32_t* signs, float scale) {
  if (n < kLanes) {
    for (std::size_t i = 0; i < n; ++i) {
      const auto scaled = x[i] * scale;
      x[i] = signs[i / 32] >> i % 32 & 1 ? -scaled : scaled;
    }
    return;
  }
  const V factor = set(scale);
  for (std::size_t i = 0; i < n; i += kLanes)
    store(hn::Mul(hn::Xor(load(x + i), hn::BitCast(F(), lifted(signs[i / 32], i % 32))), factor),
          x + i);
}

void rotate(float* x, std::size_t n, const std::uint32_t* signs, float scale) {
  flip(x, n, signs, scale);
  hadamard(x, n);
}

void unrotate(float* x, std::size_t n, const std::uint32_t* signs, float scale) {
  hadamard(x, n);
  flip(x, n, signs, scale);
}

const char* target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace preceptor::compression::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::compression {
namespace {

HWY_EXPORT(rotate);
HWY_EXPORT(unrotate);
HWY_EXPORT(target);

float checked_scale(std::span<const float> x, std::span<const std::uint32_t> signs) {
  if (!std::has_single_bit(x.size()) || x.size() > kMaxHadamard ||
      signs.size() != sign_words(x.size()))
    throw std::logic_error("a Hadamard transform of no power of two, or without its signs");
  return float(1 / std::sqrt(double(x.size())));
}

}  // namespace

void rotate_chunk(std::span<float> x, std::span<const std::uint32_t> signs) {
  const auto scale = checked_scale(x, signs);
  HWY_DYNAMIC_DISPATCH(rotate)(x.data(), x.size(), signs.data(), scale);
}

void unrotate_chunk(std::span<float> y, std::span<const std::uint32_t> signs) {
  const auto scale = checked_scale(y, signs);
  HWY_DYNAMIC_DISPATCH(unrotate)(y.data(), y.size(), signs.data(), scale);
}

const char* simd_target() { return HWY_DYNAMIC_DISPATCH(target)(); }

RandomRotation::RandomRotation(std::size_t floats, std::size_t chunk, RandomStream& random)
    : floats_(floats), chunk_(std::min(chunk, std::bit_floor(floats))) {
  if (!std::has_single_bit(chunk) || chunk > kMaxHadamard)
    throw std::logic_error("RandomRotation: a chunk that is no power of two, or too long");
  if (floats == 0) return;
  for (std::size_t at = 0; at + chunk_ <= floats; at += chunk_) starts_.push_back(at);
  if (floats % chunk_ != 0) starts_.push_back(floats - chunk_);
  signs_.resize(starts_.size() * sign_words(chunk_));
  random.fill(signs_);
}

std::span<const std::uint32_t> RandomRotation::signs_of(std::size_t index) const {
  return std::span(signs_).subspan(index * sign_words(chunk_), sign_words(chunk_));
}

void RandomRotation::apply(std::span<float> values) const {
  for (std::size_t i = 0; i < starts_.size(); ++i) apply(values, i);
}

void RandomRotation::undo(std::span<float> values) const {
  for (auto i = starts_.size(); i-- > 0;) undo(values, i);
}

void RandomRotation::apply(std::span<float> values, std::size_t i) const {
  rotate_chunk(chunk_of(values, i), signs_of(i));
}

void RandomRotation::undo(std::span<float> values, std::size_t i) const {
  unrotate_chunk(chunk_of(values, i), signs_of(i));
}

std::span<float> RandomRotation::chunk_of(std::span<float> values, std::size_t i) const {
  if (values.size() != floats_) throw std::logic_error("RandomRotation: of another size");
  return values.subspan(starts_.at(i), chunk_);
}

}  // namespace preceptor::compression
#endif
