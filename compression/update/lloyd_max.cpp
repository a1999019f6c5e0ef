#include "compression/update/lloyd_max.h"

#include "common/simd_targets.h"

#include <array>
#include <stdexcept>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/update/lloyd_max.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "compression/update/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::compression::HWY_NAMESPACE {
namespace {

using M = hn::Mask<F>;

/// table[from], or the entry that the choices of the higher bits lead to: a tree of blends over
/// 2^kDepth entries that lie `kApart` apart. choices[0] is the high bit.
template <int kDepth, int kApart = 1>
HWY_INLINE V choose(const float* table, const M* choices) {
  if constexpr (kDepth == 0) {
    return set(*table);
  } else {
    constexpr int kHalf = kApart << (kDepth - 1);
    return hn::IfThenElse(choices[0], choose<kDepth - 1, kApart>(table + kHalf, choices + 1),
                          choose<kDepth - 1, kApart>(table, choices + 1));
  }
}

/// Bits of the level's index by a binary search over the bounds: bound m lies below level m + 1.
template <int kBits>
HWY_INLINE void search(const float* bounds, V magnitude, M* choices) {
  if constexpr (kBits > 1) choices[0] = hn::Gt(magnitude, set(bounds[(1 << (kBits - 2)) - 1]));
  // Of 2^d subtrees, 2^h levels wide, each has its bound in the middle.
  if constexpr (kBits > 2) {
    constexpr int kWide = 1 << (kBits - 2);
    choices[1] = hn::Gt(magnitude, choose<1, kWide>(bounds + kWide / 2 - 1, choices));
  }
  if constexpr (kBits > 3) {
    constexpr int kWide = 1 << (kBits - 3);
    choices[2] = hn::Gt(magnitude, choose<2, kWide>(bounds + kWide / 2 - 1, choices));
  }
}

template <int kBits>
double quantise(const LloydMax& q, const float* x, std::size_t n, float inverse, std::byte* planes,
                std::size_t stride) {
  Sums sums;
  const V unit = set(inverse);
  for_steps(x, n, [&](const float* p, std::size_t i) {
    std::uint32_t words[kBits] = {};
    for (std::size_t part = 0; part < kSplit; ++part) {
      const V v = hn::Mul(load(p + part * kLanes), unit), magnitude = hn::Abs(v);
      M choices[kBits] = {};
      search<kBits>(q.bounds.data(), magnitude, choices);
      sums.add(part, hn::Mul(magnitude, choose<kBits - 1>(q.levels.data(), choices)));
      words[0] |= bits_of(hn::Lt(v, hn::Zero(F()))) << part * kLanes;
      for (int bit = 1; bit < kBits; ++bit)
        words[bit] |= bits_of(choices[bit - 1]) << part * kLanes;
    }
    for (int bit = 0; bit < kBits; ++bit) {
      const auto word = std::uint16_t(words[bit]);
      std::memcpy(planes + std::size_t(bit) * stride + i / 8, &word, sizeof word);
    }
  });
  return sums.total();
}

template <int kBits>
void dequantise(const LloydMax& q, float* x, std::size_t n, float scale, const std::byte* planes,
                std::size_t stride) {
  float levels[1 << (kBits - 1)];
  for (int i = 0; i < 1 << (kBits - 1); ++i) levels[i] = q.levels[std::size_t(i)] * scale;
  for (std::size_t i = 0; i < n; i += kStep) {
    std::uint32_t words[kBits] = {};
    for (int bit = 0; bit < kBits; ++bit) {
      std::uint16_t word;
      std::memcpy(&word, planes + std::size_t(bit) * stride + i / 8, sizeof word);
      words[bit] = word;
    }
    float last[kStep];
    auto* to = i + kStep <= n ? x + i : last;
    for (std::size_t part = 0; part < kSplit; ++part) {
      M choices[kBits] = {};
      for (int bit = 1; bit < kBits; ++bit)
        choices[bit - 1] =
            hn::MaskFromVec(hn::BitCast(F(), hn::BroadcastSignBit(hn::BitCast(
                                                 hn::RebindToSigned<F>(),
                                                 lifted(words[bit], part * kLanes)))));
      const auto sign = hn::BitCast(F(), lifted(words[0], part * kLanes));
      store(hn::Xor(choose<kBits - 1>(levels, choices), sign), to + part * kLanes);
    }
    if (to == last) std::memcpy(x + i, last, (n - i) * sizeof(float));
  }
}

double quantise_any(const LloydMax& q, const float* x, std::size_t n, float inverse,
                    std::byte* planes, std::size_t stride) {
  switch (q.bits) {
    case 1: return quantise<1>(q, x, n, inverse, planes, stride);
    case 2: return quantise<2>(q, x, n, inverse, planes, stride);
    case 3: return quantise<3>(q, x, n, inverse, planes, stride);
    default: return quantise<4>(q, x, n, inverse, planes, stride);
  }
}

void dequantise_any(const LloydMax& q, float* x, std::size_t n, float scale,
                    const std::byte* planes, std::size_t stride) {
  switch (q.bits) {
    case 1: return dequantise<1>(q, x, n, scale, planes, stride);
    case 2: return dequantise<2>(q, x, n, scale, planes, stride);
    case 3: return dequantise<3>(q, x, n, scale, planes, stride);
    default: return dequantise<4>(q, x, n, scale, planes, stride);
  }
}

}  // namespace
}  // namespace preceptor::compression::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::compression {
namespace {

HWY_EXPORT(quantise_any);
HWY_EXPORT(dequantise_any);

// By Lloyd's iteration in double until it stood still; the test checks both conditions.
constexpr float kLevels1[] = {0.797884561f};
constexpr float kLevels2[] = {0.452780035f, 1.51041761f};
constexpr float kLevels3[] = {0.245094179f, 0.756005281f, 1.34390928f, 2.1519457f};
constexpr float kLevels4[] = {0.12839503f,  0.388048299f, 0.656759119f, 0.942340456f,
                              1.2562312f,   1.61804639f,  2.06901723f,  2.73258957f};
constexpr float kBounds2[] = {0.981598822f};
constexpr float kBounds3[] = {0.50054973f, 1.04995728f, 1.74792749f};
constexpr float kBounds4[] = {0.258221665f, 0.522403709f, 0.799549788f, 1.09928583f,
                              1.43713879f,  1.84353181f,  2.4008034f};
constexpr LloydMax kQuantisers[] = {
    {1, kLevels1, {}}, {2, kLevels2, kBounds2}, {3, kLevels3, kBounds3}, {4, kLevels4, kBounds4}};

void check(std::size_t size, std::size_t begin, std::size_t end) {
  if (begin % 16 != 0 || begin > end || end > size)
    throw std::logic_error("planes of bits from the middle of a step, or past the end");
}

}  // namespace

const LloydMax& lloyd_max(unsigned bits) {
  if (bits < 1 || bits > 4) throw std::logic_error("lloyd_max: 1 to 4 bits");
  return kQuantisers[bits - 1];
}

double quantise_planes(const LloydMax& quantiser, std::span<const float> x, std::size_t begin,
                       std::size_t end, float inverse, std::byte* planes, std::size_t stride) {
  check(x.size(), begin, end);
  return HWY_DYNAMIC_DISPATCH(quantise_any)(quantiser, x.data() + begin, end - begin, inverse,
                                            planes + begin / 8, stride);
}

void dequantise_planes(const LloydMax& quantiser, std::span<float> x, std::size_t begin,
                       std::size_t end, float scale, const std::byte* planes, std::size_t stride) {
  check(x.size(), begin, end);
  HWY_DYNAMIC_DISPATCH(dequantise_any)(quantiser, x.data() + begin, end - begin, scale,
                                       planes + begin / 8, stride);
}

}  // namespace preceptor::compression
#endif
