#pragma once
#include "compression/update/ring.h"

namespace preceptor::compression {

/// The sum of a round's updates modulo 2^r, and of their totals modulo 2^64. Addition is
/// associative, so order, chunking and transport cannot change it. Memory: four bytes a word,
/// however many nodes there are. Owned by one thread; `codec` outlives it.
class RingSum {
 public:
  explicit RingSum(const RingCodec& codec)
      : codec_(&codec), words_(codec.words()), totals_(codec.totals()) {}

  void clear();

  /// Adds packed words from the `first`-th on, a multiple of 8; a chunk that is not the last ends
  /// at a multiple of 8 words. Any bytes are words, so nothing can fail: judge before.
  void add(std::size_t first, std::span<const std::byte> packed);
  void add_totals(std::span<const std::uint64_t> totals);
  /// A whole update of codec.size() bytes. Counts a node.
  void add(std::span<const std::byte> update);
  std::size_t nodes() const { return nodes_; }

  /// Where masks that are still in the sum are taken out, before close.
  std::span<std::uint32_t> words() { return words_; }
  std::span<std::uint64_t> totals() { return totals_; }

  struct Closed {
    std::vector<float> mean;  ///< update of the model [space.size()], weighted by the plan
    Totals totals;
  };
  /// Judges the sum as a whole, then decodes it. Error: kRefused, when no cohort of honest nodes
  /// could have made it: its norm, a statistic or its weight is above what their clip allows.
  Result<Closed> close(const RingRound& round) const;

  /// What everybody may know of an opened sum, and needs to move the model by it: packed words, weight (u64) and
  /// number of nodes (u32). No other total is told. Error: kRefused, where close would be.
  Result<Bytes> publish() const;
  static std::size_t published_size(const RingCodec& codec) { return codec.packed_words() + 12; }
  /// Error: kCorrupt, or kRefused for more nodes than the codec has room for; close judges the rest.
  static Result<RingSum> of_published(const RingCodec& codec, std::span<const std::byte> published);

 private:
  const RingCodec* codec_;
  std::vector<std::uint32_t> words_;  ///< modulo 2^32; of which r bits count
  std::vector<std::uint64_t> totals_;
  std::size_t nodes_ = 0;
};

/// model[i] += rate · mean[i], in double: the same bits at coordinator and node.
void move_by_mean(std::span<float> model, std::span<const float> mean, double rate);

/// Whether an update that no mask hides could be an honest node's. Error: kCorrupt or kRefused.
Result<void> check_unmasked(const RingCodec& codec, std::span<const std::byte> update);

}  // namespace preceptor::compression
