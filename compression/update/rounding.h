#pragma once
#include <cstdint>
#include <span>

#include "common/bytes.h"

namespace preceptor::compression {

/// Stochastic rounding: codes[i] = Q + floor(x[i] / scale * Q + noise), noise uniform in [0, 1), in
/// fixed point of 23 bits, so E[codes[i]] - Q = x[i] / scale * Q to 2^-23. scale: finite, > 0; what
/// is above it is clipped. levels: Q, 1..127. noise: 32 random bits a value. Thread-safe; the same
/// codes on every instruction set.
void round_stochastically(std::span<const float> x, float scale, unsigned levels,
                          std::span<const std::uint32_t> noise, std::byte* codes);

/// x[i] = (codes[i] - Q) / Q * scale. Returns the highest code, which may be above 2 Q.
unsigned values_of_codes(std::span<const std::byte> codes, unsigned levels, float scale, float* x);

/// Codes below 2^bits, bits 2, 4 or 8, as bit fields, low bits first. codes.size() fills whole bytes.
void pack_codes(std::span<const std::byte> codes, unsigned bits, Bytes& out);
Bytes unpack_codes(std::span<const std::byte> packed, unsigned bits);

}  // namespace preceptor::compression
