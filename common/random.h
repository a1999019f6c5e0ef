#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace preceptor {

/// A named, seeded stream of random numbers: Philox4x32-10 (Salmon 2011,
/// doi:10.1145/2063384.2063405). The key is SHA-256 of (seed, name, indices), so a stream depends
/// on nothing but what it is called: not on threads, nor on what was drawn elsewhere. Cheap to
/// make; not thread-safe; not for secrets.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name,
               std::initializer_list<std::uint64_t> indices = {});

  std::uint32_t bits32();
  std::uint64_t bits64();
  void fill(std::span<std::uint32_t> out);   ///< as so many calls of bits32, faster
  double uniform();                          ///< [0, 1), 53 bits
  double uniform(double low, double high);   ///< [low, high)
  std::uint64_t below(std::uint64_t bound);  ///< [0, bound), exactly uniform; bound > 0
  double normal();                           ///< mean 0, deviation 1 (Box-Muller)
  double gamma(double shape);                ///< shape > 0, scale 1 (Marsaglia-Tsang 2000)

  /// Fisher-Yates.
  template <class T>
  void shuffle(std::span<T> items) {
    for (std::size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[below(i)]);
  }
  /// 0 … count-1 in random order.
  std::vector<std::size_t> permutation(std::size_t count);

  /// One Philox block, public for the published test vectors.
  static std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                             std::array<std::uint32_t, 2> key);

 private:
  std::array<std::uint32_t, 4> next_block();

  std::array<std::uint32_t, 2> key_;
  std::uint64_t block_ = 0;
  std::array<std::uint32_t, 4> buffer_{};
  unsigned used_ = 4;
};

}  // namespace preceptor
