#include "compression/update/ring_words.h"

#include <algorithm>
#include <array>

namespace preceptor::compression {
namespace {

constexpr std::size_t kTile = 4096;  ///< words; a multiple of 8

std::uint64_t read64(std::span<const std::byte> bytes, std::size_t at) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + at, std::min(sizeof word, bytes.size() - at));
  return word;
}

}  // namespace

Bytes pack_words(std::span<const std::uint32_t> words, int r) {
  Bytes out(packed_size(words.size(), r) + sizeof(std::uint64_t));  // room for whole stores
  std::uint64_t pending = 0;
  int held = 0;
  std::size_t at = 0;
  for (const auto word : words) {
    pending |= std::uint64_t{word} << held;
    held += r;
    if (held >= 32) {
      const auto low = std::uint32_t(pending);
      std::memcpy(out.data() + at, &low, sizeof low);
      at += sizeof low;
      pending >>= 32;
      held -= 32;
    }
  }
  std::memcpy(out.data() + at, &pending, sizeof pending);
  out.resize(packed_size(words.size(), r));
  return out;
}

void unpack_words(std::span<const std::byte> packed, std::size_t count, int r,
                  const std::function<void(std::size_t, std::span<const std::uint32_t>)>& fold) {
  const auto mask = ~std::uint64_t{0} >> (64 - r);
  std::array<std::uint32_t, kTile> tile;
  for (std::size_t first = 0; first < count; first += kTile) {
    const auto length = std::min(kTile, count - first);
    for (std::size_t i = 0; i < length; ++i) {
      const auto bit = (first + i) * std::size_t(r);
      tile[i] = std::uint32_t(read64(packed, bit / 8) >> bit % 8 & mask);
    }
    fold(first, std::span(tile).first(length));
  }
}

bool well_padded(std::span<const std::byte> packed, std::size_t count, int r) {
  const auto used = count * std::size_t(r) % 8;
  return used == 0 || std::to_integer<unsigned>(packed.back()) >> used == 0;
}

}  // namespace preceptor::compression
