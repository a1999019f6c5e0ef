#include "privacy/secure_aggregation/mask_set.h"

#include <algorithm>

namespace preceptor::privacy {

namespace {

/// A fixed trip count, so that -O2 makes vectors of it.
template <class Word>
void cut(std::span<Word> words, Word ring) {
  constexpr std::size_t kLine = 64 / sizeof(Word);
  for (; words.size() >= kLine; words = words.subspan(kLine))
    for (std::size_t i = 0; i < kLine; ++i) words[i] &= ring;
  for (auto& word : words) word &= ring;
}

}  // namespace

thread_local void (*MaskSet::probe)(const Secret<32>& key) = nullptr;

Result<void> MaskSet::add(Suite suite, const Secret<32>& key, bool subtract) {
  if (probe) probe(key);
  masks_.push_back({TRY(MaskStream::create(suite, key)), subtract});
  return {};
}

template <class Word>
Result<void> MaskSet::fold_words(std::uint64_t first, std::span<Word> words, int bits) {
  for (auto& mask : masks_)
    if (auto at = mask.stream.seek(first, sizeof(Word)); !at) return at;
  const auto unused = int(8 * sizeof(Word)) - bits;
  const Word ring = Word(~Word{0}) >> unused;
  while (!words.empty()) {
    const auto tile = words.first(std::min(words.size(), MaskStream::kTileBytes / sizeof(Word)));
    for (auto& mask : masks_)
      if (auto done = mask.subtract ? mask.stream.subtract(tile) : mask.stream.add(tile); !done) return done;
    if (unused > 0) cut(tile, ring);
    words = words.subspan(tile.size());
  }
  return {};
}

Result<void> MaskSet::fold(std::uint64_t first, Words words, int bits) {
  return std::visit([&](auto span) { return fold_words(first, span, bits); }, words);
}

}  // namespace preceptor::privacy
