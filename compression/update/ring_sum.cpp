#include "compression/update/ring_sum.h"

#include <algorithm>
#include <cmath>

#include "compression/update/ring_words.h"

namespace preceptor::compression {
namespace {

constexpr double kSlack = 1 + 1e-9;  ///< of sums in double

std::vector<std::uint64_t> totals_of(const RingCodec& codec, std::span<const std::byte> update) {
  std::vector<std::uint64_t> totals(codec.totals());
  std::memcpy(totals.data(), update.data() + codec.packed_words(), 8 * totals.size());
  return totals;
}

/// `nodes` honest ones at most.
Result<Totals> check_totals(const RingCodec& codec, std::span<const std::uint64_t> words,
                            std::size_t nodes) {
  auto totals = TRY(Totals::decode(words, codec.layout()));
  if (nodes == 0) return fail(Code::kRefused, "a sum of no update");
  if (totals.weight < nodes || totals.weight > nodes * codec.max_weight())
    return fail(Code::kRefused, "a weight of {} for {} nodes of 1 to {} each", totals.weight,
                nodes, codec.max_weight());
  if (totals.samples > nodes * Totals::kMaxImages)
    return fail(Code::kRefused, "{} training images at {} nodes", totals.samples, nodes);
  if (totals.loss < 0) return fail(Code::kRefused, "a training loss below zero");
  return totals;
}

Result<void> check_statistics(const RingCodec& codec, std::span<const std::uint32_t> words, std::uint64_t weight) {
  if (codec.statistics_in_range(words, weight)) return {};
  return fail(Code::kRefused, "a normalisation statistic beyond ±{}, to which every node clamps its own", RingCodec::kStatisticsClip);
}

}  // namespace

void RingSum::clear() {
  std::ranges::fill(words_, 0);
  std::ranges::fill(totals_, 0);
  nodes_ = 0;
}

void RingSum::add(std::size_t first, std::span<const std::byte> packed) {
  const int r = codec_->options().ring_bits;
  const auto count = std::min(words_.size() - first, packed.size() * 8 / std::size_t(r));
  unpack_words(packed, count, r, [&](std::size_t at, std::span<const std::uint32_t> words) {
    for (std::size_t i = 0; i < words.size(); ++i) words_[first + at + i] += words[i];
  });
}

void RingSum::add_totals(std::span<const std::uint64_t> totals) {
  for (std::size_t i = 0; i < totals_.size(); ++i) totals_[i] += totals[i];
}

void RingSum::add(std::span<const std::byte> update) {
  if (update.size() != codec_->size()) throw std::logic_error("ring: an update of another size");
  add(0, update.first(codec_->packed_words()));
  add_totals(totals_of(*codec_, update));
  ++nodes_;
}

Result<RingSum::Closed> RingSum::close(const RingRound& round) const {
  auto totals = TRY(check_totals(*codec_, totals_, nodes_));
  double square = 0;
  for (const auto word : std::span(words_).first(codec_->rotated())) {
    const double value = codec_->centred(word);
    square += value * value;
  }
  const double most = codec_->norm_bound(nodes_, totals.weight) * kSlack;
  if (std::sqrt(square) > most)
    return fail(Code::kRefused, "the sum's norm {:.4g} is above {:.4g}, the most that {} clipped updates of weight {} together have",
                std::sqrt(square), most, nodes_, totals.weight);
  TRY(check_statistics(*codec_, std::span(words_).subspan(codec_->rotated()), totals.weight));
  return Closed{codec_->decode(words_, totals.weight, round), std::move(totals)};
}

Result<Bytes> RingSum::publish() const {
  const auto totals = TRY(check_totals(*codec_, totals_, nodes_));
  const auto used = std::uint32_t(~std::uint64_t{0} >> (64 - codec_->options().ring_bits));
  auto words = words_;
  for (auto& word : words) word &= used;
  auto bytes = pack_words(words, codec_->options().ring_bits);
  ByteWriter out(bytes);
  out.put(totals.weight);
  out.put(std::uint32_t(nodes_));
  return bytes;
}

Result<RingSum> RingSum::of_published(const RingCodec& codec, std::span<const std::byte> published) {
  if (published.size() != published_size(codec))
    return fail(Code::kCorrupt, "a sum of {} bytes; this job's have {}", published.size(), published_size(codec));
  const auto packed = published.first(codec.packed_words());
  if (!well_padded(packed, codec.words(), codec.options().ring_bits)) return fail(Code::kCorrupt, "broken bit field");
  ByteReader in(published.subspan(packed.size()));
  Totals totals;
  totals.weight = TRY(in.get<std::uint64_t>());
  totals.fidelity.resize(codec.layout().stages);
  totals.scores.resize(codec.layout().histograms);
  RingSum sum(codec);
  sum.nodes_ = TRY(in.get<std::uint32_t>());
  if (sum.nodes_ > std::size_t(codec.options().max_nodes))
    return fail(Code::kRefused, "a sum of {} nodes; the ring has room for {}", sum.nodes_, codec.options().max_nodes);
  sum.add(0, packed);
  sum.totals_ = totals.encode();
  return sum;
}

void move_by_mean(std::span<float> model, std::span<const float> mean, double rate) {
  for (std::size_t i = 0; i < model.size(); ++i) model[i] = float(double(model[i]) + rate * double(mean[i]));
}

Result<void> check_unmasked(const RingCodec& codec, std::span<const std::byte> update) {
  if (update.size() != codec.size())
    return fail(Code::kRefused, "{} bytes; an update of this job has {}", update.size(), codec.size());
  const auto packed = update.first(codec.packed_words());
  const int r = codec.options().ring_bits;
  if (!well_padded(packed, codec.words(), r)) return fail(Code::kCorrupt, "broken bit field");
  const auto totals = TRY(check_totals(codec, totals_of(codec, update), 1));
  double square = 0;
  std::uint32_t largest = 0;
  std::vector<std::uint32_t> statistics;
  statistics.reserve(codec.words() - codec.rotated());
  unpack_words(packed, codec.words(), r, [&](std::size_t first, std::span<const std::uint32_t> words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
      const auto value = codec.centred(words[i]);
      largest = std::max(largest, std::uint32_t(std::abs(std::int64_t{value})));
      if (first + i < codec.rotated()) square += double(value) * value;
      else statistics.push_back(words[i]);
    }
  });
  const double most = codec.norm_bound(1, totals.weight) * kSlack;
  if (largest > codec.limit() && codec.options().noise == 0)
    return fail(Code::kRefused, "a word of {}; the quantiser's are within ±{}", largest, codec.limit());
  if (std::sqrt(square) > most)
    return fail(Code::kRefused, "its norm {:.4g} is above {:.4g}, the most that the clip leaves", std::sqrt(square), most);
  return check_statistics(codec, statistics, totals.weight);
}

}  // namespace preceptor::compression
