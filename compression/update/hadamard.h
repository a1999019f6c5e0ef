#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/random.h"

namespace preceptor::compression {

/// Floats of the longest transform: 64 KiB, which a core's own cache holds.
constexpr std::size_t kMaxHadamard = 1 << 14;

/// 32-bit words that hold one sign for each of `floats`.
constexpr std::size_t sign_words(std::size_t floats) { return (floats + 31) / 32; }

/// y = H D x / sqrt(n) in place, orthonormal: D flips the sign of x[i] where bit i % 32 of
/// signs[i / 32] is set, H is the Walsh-Hadamard matrix in natural order (Sylvester's).
/// n = x.size(): a power of two <= kMaxHadamard; signs: sign_words(n). n log2 n additions.
/// The result is the same to the last bit on every instruction set: each level's additions are
/// pairs, levels go from stride 1 up, and nothing is fused. Thread-safe. Magnitudes above
/// FLT_MAX / sqrt(n) can overflow.
void rotate_chunk(std::span<float> x, std::span<const std::uint32_t> signs);
/// The inverse: x = D H y / sqrt(n).
void unrotate_chunk(std::span<float> y, std::span<const std::uint32_t> signs);

/// The orthonormal rotation of any number of floats, in chunks of c = min(chunk, the largest power
/// of two <= floats), at 0, c, 2c, …; where c does not divide the number, the last chunk is the
/// last c floats and works on what the one before it left there. So nothing is padded, and every
/// output is one of a transform of c. Immutable; thread-safe.
///
/// After a rotation the values of a chunk are close to Gaussian (Suresh 2017, arXiv:1611.00429),
/// unless few values had most of its energy: k nonzeros leave 2^(k - 1) magnitudes at most, always
/// the same.
class RandomRotation {
 public:
  /// chunk: a power of two <= kMaxHadamard. Signs are drawn from `random`, chunk after chunk,
  /// whole words.
  RandomRotation(std::size_t floats, std::size_t chunk, RandomStream& random);

  void apply(std::span<float> values) const;  ///< values.size() == floats
  void undo(std::span<float> values) const;
  /// Chunk i alone: apply from the first chunk on, undo from the last.
  void apply(std::span<float> values, std::size_t i) const;
  void undo(std::span<float> values, std::size_t i) const;

  /// Where chunks begin. Values from starts()[i] to starts()[i + 1] (or the end) left chunk i last
  /// and share its scale.
  const std::vector<std::size_t>& starts() const { return starts_; }
  std::size_t chunk() const { return chunk_; }  ///< c

 private:
  std::span<const std::uint32_t> signs_of(std::size_t index) const;
  std::span<float> chunk_of(std::span<float> values, std::size_t i) const;

  std::size_t floats_, chunk_;
  std::vector<std::size_t> starts_;
  std::vector<std::uint32_t> signs_;
};

/// Name of the instruction set that the kernels of this folder use now: "AVX3", "AVX2", "SCALAR" …
const char* simd_target();

}  // namespace preceptor::compression
