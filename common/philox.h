#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace preceptor {

/// Philox4x32-10 in counter mode: out[4 i … 4 i + 3] is RandomStream::philox of counter first + i
/// and this key. out.size() is a multiple of 4. As many blocks at once as the CPU has lanes; the
/// same words on every instruction set.
void philox_blocks(std::array<std::uint32_t, 2> key, std::uint64_t first,
                   std::span<std::uint32_t> out);

}  // namespace preceptor
