#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace preceptor::compression {

/// The quantiser of least squared error for N(0, 1) with 2^bits levels, symmetric about 0 (Lloyd
/// 1957, doi:10.1109/TIT.1982.1056489; Max 1960, doi:10.1109/TIT.1960.1057548): each level is the
/// mean of its cell, each bound lies halfway between two levels.
struct LloydMax {
  unsigned bits;                  ///< 1..4
  std::span<const float> levels;  ///< [2^(bits - 1)], positive, ascending
  std::span<const float> bounds;  ///< [2^(bits - 1) - 1], between them
};
const LloydMax& lloyd_max(unsigned bits);

/// Bytes of one plane of bits over n values; a code of b bits is b planes: the sign (set where
/// negative), then the index of the level, high bit first. Bit i % 8 of byte i / 8 is value i's.
constexpr std::size_t plane_bytes(std::size_t n) { return (n + 7) / 8; }

/// Writes the codes of x[i] * inverse for i in [begin, end) into `bits` planes, `stride` bytes
/// apart, and returns sum |x[i]| * inverse * level[i]. begin is a multiple of 16; bits after `end`
/// in its last 16 are 0, and up to 2 bytes from end / 16 * 2 on are written. Thread-safe; the same
/// bits on every instruction set.
double quantise_planes(const LloydMax& quantiser, std::span<const float> x, std::size_t begin,
                       std::size_t end, float inverse, std::byte* planes, std::size_t stride);

/// x[i] = ±level[i] * scale for i in [begin, end). begin is a multiple of 16; planes are readable
/// for whole 16 values.
void dequantise_planes(const LloydMax& quantiser, std::span<float> x, std::size_t begin,
                       std::size_t end, float scale, const std::byte* planes, std::size_t stride);

}  // namespace preceptor::compression
