#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include "common/bytes.h"

namespace preceptor::compression {

/// Words of r bits, 2 ≤ r ≤ 32, one after the other, low bits first; the last byte ends in zeros.
/// Eight words are r bytes, so a stream may be cut there.
inline std::size_t packed_size(std::size_t words, int r) {
  return (words * std::size_t(r) + 7) / 8;
}

/// No bit above the r-th may be set.
Bytes pack_words(std::span<const std::uint32_t> words, int r);

/// Unpacks `count` words tile by tile; needs packed_size(count, r) bytes. Calls fold(first, words).
void unpack_words(std::span<const std::byte> packed, std::size_t count, int r,
                  const std::function<void(std::size_t, std::span<const std::uint32_t>)>& fold);

/// Whether the unused bits of the last byte are zero.
bool well_padded(std::span<const std::byte> packed, std::size_t count, int r);

}  // namespace preceptor::compression
