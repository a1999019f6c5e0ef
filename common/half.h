#pragma once
#include <bit>
#include <cstdint>

namespace preceptor {

/// The two 16-bit float formats, as bit patterns, without any instruction set's help. Conversions
/// to 16 bits round to nearest, ties to even; overflow becomes infinity and a NaN stays a NaN, as
/// IEEE 754 has it. Those from 16 bits are exact.

inline constexpr float kFp16Max = 65504.0f;     ///< largest finite binary16
inline constexpr float kBf16Max = 0x1.fep127f;  ///< largest finite bfloat16

/// binary16: 5 exponent bits, 10 fraction bits.
inline std::uint16_t to_fp16(float value) {
  constexpr std::uint32_t kOverflow = 143u << 23;  // 2^16: infinity whatever the fraction
  constexpr std::uint32_t kNormal = 113u << 23;    // 2^-14: the smallest normal binary16
  constexpr std::uint32_t kMagic = 126u << 23;  // adding 0.5 leaves fraction bits of weight 2^-24
  const auto all = std::bit_cast<std::uint32_t>(value);
  auto bits = all & 0x7fffffffu;
  if (bits >= kOverflow) {
    bits = bits > 0x7f800000u ? 0x7e00 : 0x7c00;
  } else if (bits < kNormal) {
    const float shifted = std::bit_cast<float>(bits) + std::bit_cast<float>(kMagic);
    bits = std::bit_cast<std::uint32_t>(shifted) - kMagic;
  } else {
    bits = (bits - (112u << 23) + 0xfff + ((bits >> 13) & 1)) >> 13;
  }
  return std::uint16_t(bits | (all >> 31) << 15);
}

inline float from_fp16(std::uint16_t half) {
  constexpr std::uint32_t kExponent = 31u << 23;
  auto bits = (half & 0x7fffu) << 13;
  const auto exponent = bits & kExponent;
  bits += 112u << 23;
  if (exponent == kExponent) bits += 112u << 23;  // infinity, NaN
  auto value = std::bit_cast<float>(bits);
  if (exponent == 0) value = std::bit_cast<float>(bits + (1u << 23)) - 0x1p-14f;  // subnormal
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(value) | (half & 0x8000u) << 16);
}

/// bfloat16: the upper half of a float32.
inline std::uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return std::uint16_t(bits >> 16 | 0x40);
  return std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float from_bf16(std::uint16_t half) {
  return std::bit_cast<float>(std::uint32_t(half) << 16);
}

/// The smallest bfloat16 that is not below `value` (>= 0, finite); kBf16Max where only infinity
/// would do.
inline std::uint16_t to_bf16_up(float value) {
  constexpr std::uint32_t kLargest = 0x7f7f;
  const auto bits = (std::bit_cast<std::uint32_t>(value) + 0xffff) >> 16;
  return std::uint16_t(bits < kLargest ? bits : kLargest);
}

}  // namespace preceptor
