#include "compression/update/ring_transform.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "compression/update/hadamard.h"

namespace preceptor::compression {
namespace {

constexpr double kMaxWaste = 0.03;
/// Chunks dealt at a time: one cache line of the update feeds as many.
constexpr std::size_t kDealt = 16;

std::vector<std::uint32_t> signs_of(std::size_t chunk, std::uint64_t seed, std::uint32_t round, std::size_t index) {
  std::vector<std::uint32_t> signs(sign_words(chunk));
  RandomStream(seed, "rotation", {round, index}).fill(signs);
  return signs;
}

}  // namespace

RingTransform::RingTransform(std::size_t floats, std::size_t chunk)
    : floats_(floats), chunk_(std::bit_floor(std::max(chunk, kMinChunk))) {
  const auto padded = [&] { return (floats_ + chunk_ - 1) / chunk_ * chunk_; };
  while (chunk_ > kMinChunk && double(padded()) > (1 + kMaxWaste) * double(floats_)) chunk_ /= 2;
  chunks_ = padded() / chunk_;
}

void RingTransform::forward(std::span<const float> values, std::uint64_t seed, std::uint32_t round,
                            const Chunk& take) const {
  std::vector<float> dealt(kDealt * chunk_);
  for (std::size_t first = 0; first < chunks_; first += kDealt) {
    const auto count = std::min(kDealt, chunks_ - first);
    for (std::size_t p = 0; p < chunk_; ++p) {
      const auto from = p * chunks_ + first;
      for (std::size_t c = 0; c < count; ++c)
        dealt[c * chunk_ + p] = from + c < floats_ ? values[from + c] : 0;
    }
    for (std::size_t c = 0; c < count; ++c) {
      const auto chunk = std::span(dealt).subspan(c * chunk_, chunk_);
      rotate_chunk(chunk, signs_of(chunk_, seed, round, first + c));
      take((first + c) * chunk_, chunk);
    }
  }
}

void RingTransform::inverse(std::span<float> values, std::uint64_t seed, std::uint32_t round,
                            const Chunk& give) const {
  std::vector<float> dealt(kDealt * chunk_);
  for (std::size_t first = 0; first < chunks_; first += kDealt) {
    const auto count = std::min(kDealt, chunks_ - first);
    for (std::size_t c = 0; c < count; ++c) {
      const auto chunk = std::span(dealt).subspan(c * chunk_, chunk_);
      give((first + c) * chunk_, chunk);
      unrotate_chunk(chunk, signs_of(chunk_, seed, round, first + c));
    }
    for (std::size_t p = 0; p < chunk_; ++p) {
      const auto to = p * chunks_ + first;
      for (std::size_t c = 0; c < count && to + c < floats_; ++c)
        values[to + c] = dealt[c * chunk_ + p];
    }
  }
}

}  // namespace preceptor::compression
