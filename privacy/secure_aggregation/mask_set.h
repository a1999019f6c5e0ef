#pragma once
#include <variant>
#include <vector>

#include "privacy/secure_aggregation/mask_stream.h"

namespace preceptor::privacy {

/// Words of one vector, as a caller holds them.
using Words = std::variant<std::span<std::uint32_t>, std::span<std::uint64_t>>;

/// Several masks folded into one vector at once: each tile of words is fetched from memory once,
/// however many masks there are. Owned by one thread.
class MaskSet {
 public:
  /// `key`: of a stream that is added, or subtracted. Tests see each key by `probe`.
  Result<void> add(Suite suite, const Secret<32>& key, bool subtract);
  /// Folds all masks into the words from the `first`-th on, modulo 2^bits.
  Result<void> fold(std::uint64_t first, Words words, int bits);
  std::size_t size() const { return masks_.size(); }

  /// Called with each key that a mask is made of, on this thread; for the test that none is used twice.
  static thread_local void (*probe)(const Secret<32>& key);

 private:
  struct Mask {
    MaskStream stream;
    bool subtract;
  };
  template <class Word>
  Result<void> fold_words(std::uint64_t first, std::span<Word> words, int bits);
  std::vector<Mask> masks_;
};

}  // namespace preceptor::privacy
