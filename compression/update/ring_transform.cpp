#include "compression/update/ring_transform.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "common/random.h"

namespace preceptor::compression {
namespace {

constexpr double kMaxWaste = 0.03;
/// Chunks dealt at a time: one cache line of the update feeds as many.
constexpr std::size_t kDealt = 16;

/// Butterflies in place, unscaled; the size is a power of two.
void hadamard(std::span<float> x) {
  for (std::size_t half = 1; half < x.size(); half *= 2) {
    for (std::size_t start = 0; start < x.size(); start += 2 * half) {
      float* low = x.data() + start;
      float* high = low + half;
      for (std::size_t i = 0; i < half; ++i) {
        const float a = low[i], b = high[i];
        low[i] = a + b;
        high[i] = a - b;
      }
    }
  }
}

/// Turns the signs of a chunk by the stream's bits and scales it.
void flip(std::span<float> chunk, std::uint64_t seed, std::uint32_t round, std::size_t index,
          float scale) {
  std::vector<std::uint32_t> bits(chunk.size() / 32);
  RandomStream(seed, "rotation", {round, index}).fill(bits);
  for (std::size_t i = 0; i < chunk.size(); ++i) {
    const auto sign = (bits[i / 32] >> i % 32) << 31;
    chunk[i] = scale * std::bit_cast<float>(std::bit_cast<std::uint32_t>(chunk[i]) ^ sign);
  }
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
  const auto scale = float(1 / std::sqrt(double(chunk_)));
  for (std::size_t first = 0; first < chunks_; first += kDealt) {
    const auto count = std::min(kDealt, chunks_ - first);
    for (std::size_t p = 0; p < chunk_; ++p) {
      const auto from = p * chunks_ + first;
      for (std::size_t c = 0; c < count; ++c)
        dealt[c * chunk_ + p] = from + c < floats_ ? values[from + c] : 0;
    }
    for (std::size_t c = 0; c < count; ++c) {
      const auto chunk = std::span(dealt).subspan(c * chunk_, chunk_);
      flip(chunk, seed, round, first + c, scale);
      hadamard(chunk);
      take((first + c) * chunk_, chunk);
    }
  }
}

void RingTransform::inverse(std::span<float> values, std::uint64_t seed, std::uint32_t round,
                            const Chunk& give) const {
  std::vector<float> dealt(kDealt * chunk_);
  const auto scale = float(1 / std::sqrt(double(chunk_)));
  for (std::size_t first = 0; first < chunks_; first += kDealt) {
    const auto count = std::min(kDealt, chunks_ - first);
    for (std::size_t c = 0; c < count; ++c) {
      const auto chunk = std::span(dealt).subspan(c * chunk_, chunk_);
      give((first + c) * chunk_, chunk);
      hadamard(chunk);
      flip(chunk, seed, round, first + c, scale);
    }
    for (std::size_t p = 0; p < chunk_; ++p) {
      const auto to = p * chunks_ + first;
      for (std::size_t c = 0; c < count && to + c < floats_; ++c)
        values[to + c] = dealt[c * chunk_ + p];
    }
  }
}

}  // namespace preceptor::compression
