#pragma once
#include <cstdint>
#include <functional>
#include <span>

namespace preceptor::compression {

/// Rotation by a shared seed: random signs, then a Walsh-Hadamard transform in chunks, orthonormal
/// (Suresh 2017, arXiv:1611.00429). Afterwards every coordinate is near Gaussian with the same
/// spread, whatever the update looked like, so that one public scale serves all of them. Chunks are
/// dealt like cards: value i goes to chunk i mod chunks, so that a layer of large values spreads
/// over all chunks. All nodes of a round and the coordinator rotate alike. Immutable.
class RingTransform {
 public:
  static constexpr std::size_t kMinChunk = 64;

  /// chunk: a power of two >= kMinChunk; halved until padding wastes at most 3 %, or kMinChunk is
  /// reached.
  RingTransform(std::size_t floats, std::size_t chunk);

  std::size_t floats() const { return floats_; }
  std::size_t chunk() const { return chunk_; }
  std::size_t size() const { return chunks_ * chunk_; }  ///< of the rotated vector, with padding

  /// A chunk of the rotated vector, and where it begins there.
  using Chunk = std::function<void(std::size_t offset, std::span<float> chunk)>;
  /// [floats()] → [size()], same norm; given chunk by chunk, in order.
  void forward(std::span<const float> values, std::uint64_t seed, std::uint32_t round,
               const Chunk& take) const;
  /// [size()] → [floats()]; `give` fills each chunk.
  void inverse(std::span<float> values, std::uint64_t seed, std::uint32_t round,
               const Chunk& give) const;

 private:
  std::size_t floats_, chunk_, chunks_;
};

}  // namespace preceptor::compression
