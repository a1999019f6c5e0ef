#include "compression/update/ring.h"

#include <algorithm>
#include <cmath>

#include "compression/update/ring_words.h"

namespace preceptor::compression {
namespace {

constexpr double kStatisticsSteps = double(std::uint64_t{1} << 31);  ///< of a clamped statistic

/// Integers between which a value lies, by a coin that makes the mean right.
std::int64_t round_stochastically(double value, std::uint32_t coin) {
  const double low = std::floor(value);
  return std::int64_t(low) + (double(coin) < (value - low) * 0x1p32);
}

std::uint32_t quantiser_limit(int bits) { return (std::uint32_t{1} << (bits - 1)) - 1; }

std::size_t count_kept(std::size_t floats, double keep) {
  return std::min(floats, std::size_t(std::ceil(keep * double(floats))));
}

template <class Section>
void add_piece(Section& section, const Piece& piece) {
  section.pieces.push_back(piece);
  section.size += piece.size;
}

template <class Section>
std::vector<float> gather(const Section& section, std::span<const float> delta) {
  std::vector<float> values;
  values.reserve(section.size);
  for (const auto& piece : section.pieces) {
    const auto part = delta.subspan(piece.offset, piece.size);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

template <class Section>
void scatter(const Section& section, std::span<const float> values, std::span<float> delta) {
  for (const auto& piece : section.pieces) {
    std::ranges::copy(values.first(piece.size), delta.begin() + std::ptrdiff_t(piece.offset));
    values = values.subspan(piece.size);
  }
}

/// A hair below c, so that float rounding leaves nobody above it.
void clip(std::span<float> values, double c) {
  double square = 0;
  for (const float x : values) square += double(x) * x;
  const double norm = std::sqrt(square);
  if (norm <= c * (1 - 1e-6)) return;
  const auto factor = float(c / norm * (1 - 1e-6));
  for (auto& x : values) x *= factor;
}

}  // namespace

double rounded_norm_bound(double c, std::size_t d, double beta) {
  const double root = std::sqrt(double(d)), always = c + root;
  if (beta <= 0) return always;
  const double mostly =
      c * c + double(d) / 4 + std::sqrt(2 * std::log(1 / beta)) * (c + root / 2);
  return std::min(always, std::sqrt(mostly));
}

RingCodec::RingCodec(const RingOptions& options, const ParameterSpace& space)
    : options_(options), space_size_(space.size()), transform_(0, std::size_t(options.chunk)) {
  for (const auto& piece : space.pieces()) {
    if (is_frozen(piece.role)) continue;
    if (!is_statistic(piece.role)) add_piece(weights_, piece);
    else if (options.statistics == "sum") add_piece(statistics_, piece);
  }
  limit_ = quantiser_limit(options.bits);
  floats_ = count_kept(weights_.size, options.keep);
  transform_ = RingTransform(floats_, std::size_t(options.chunk));
  scale_ = limit_ * std::sqrt(double(std::max<std::size_t>(weights_.size, 1))) /
           (options.range * options.clip);
  norm_bound_ = rounded_norm_bound(options.clip * scale_, transform_.size(), options.beta);
  const double base = 2.0 * limit_ + 1;
  for (double reach = 1; (reach - 1) / 2 < kStatisticsSteps; reach *= base) ++digits_;
}

Result<int> ring_bits(const RingOptions& options) {
  if (options.max_nodes < 1)
    return fail(Code::kInvalid, "ring: max_nodes says how many nodes a sum may have; it is {}",
                options.max_nodes);
  if (options.chunk & (options.chunk - 1))
    return fail(Code::kInvalid, "ring: chunk is a power of two, and {} is not", options.chunk);
  const auto limit = quantiser_limit(options.bits);
  const double room = double(options.max_nodes) * limit + 6 * options.noise;
  int needed = 2;
  while (needed <= 32 && std::ldexp(1.0, needed - 1) <= room) ++needed;
  if (needed > 32 || (options.ring_bits > 0 && options.ring_bits < needed))
    return fail(Code::kInvalid,
                "ring: {} nodes of ±{} each and noise of 6·{} add up to {:.0f}, for which {} bits "
                "are needed (2^(r-1) > {:.0f}); ring_bits is {} and at most 32",
                options.max_nodes, limit, options.noise, room, needed, room,
                options.ring_bits);
  return options.ring_bits > 0 ? options.ring_bits : needed;
}

Result<RingCodec> RingCodec::create(const RingOptions& options, const ParameterSpace& space) {
  auto filled = options;
  filled.ring_bits = TRY(compression::ring_bits(options));
  RingCodec codec(filled, space);
  if (options.noise > 0 && codec.statistics_.size > 0)
    return fail(Code::kInvalid,
                "ring: {} normalisation statistics and noise do not go together: statistics are no "
                "clipped sum that noise could hide; set statistics: keep, or use a network without batch norm",
                codec.statistics_.size);
  if (codec.weights_.size == 0) return fail(Code::kInvalid, "ring: the model has no weights");
  return codec;
}

std::size_t RingCodec::packed_words() const { return packed_size(words(), options_.ring_bits); }

std::uint64_t RingCodec::max_weight() const {
  return options_.weights == "none" ? 1 : options_.weight_cap;
}
std::uint64_t RingCodec::weight_of(std::uint64_t samples) const {
  return std::clamp<std::uint64_t>(samples, 1, max_weight());
}

double RingCodec::norm_bound(std::size_t nodes, std::uint64_t weight) const {
  const double n = double(nodes), d = double(transform_.size());
  const double share = double(weight) / double(max_weight());
  const double clipped = std::min(n * norm_bound_, share * options_.clip * scale_ + n * std::sqrt(d));
  return clipped + options_.noise * (std::sqrt(d) + 10);
}

bool RingCodec::statistics_in_range(std::span<const std::uint32_t> sum, std::uint64_t weight) const {
  return std::ranges::all_of(decode_statistics(sum, double(weight) / double(max_weight())),
                             [](float x) { return std::abs(x) < kStatisticsClip + 1; });  // 1: of rounding
}

/// Selection sampling (Knuth, TAOCP 2, algorithm 3.4.2 S): every subset is equally likely.
std::vector<std::uint32_t> RingCodec::kept(const RingRound& round) const {
  std::vector<std::uint32_t> indices;
  if (floats_ == weights_.size) return indices;
  indices.reserve(floats_);
  RandomStream random(round.seed, "random-k", {round.round});
  for (std::size_t i = 0; indices.size() < floats_; ++i)
    if (random.below(weights_.size - i) < floats_ - indices.size())
      indices.push_back(std::uint32_t(i));
  return indices;
}

void RingCodec::round_weights(std::span<const float> values, const RingRound& round,
                              RandomStream& random, std::span<std::uint32_t> words) const {
  const double most = norm_bound_ * norm_bound_;
  for (double square = INFINITY; square > most;) {
    square = 0;
    std::vector<std::uint32_t> coins;
    transform_.forward(values, round.seed, round.round,
                       [&](std::size_t offset, std::span<float> chunk) {
                         coins.resize(chunk.size());
                         random.fill(coins);
                         for (std::size_t i = 0; i < chunk.size(); ++i) {
                           const double steps = std::clamp(double(chunk[i]) * scale_,
                                                           -double(limit_), double(limit_));
                           const auto word = round_stochastically(steps, coins[i]);
                           square += double(word) * double(word);
                           words[offset + i] = ring(word);
                         }
                       });
  }
}

void RingCodec::encode_statistics(std::span<const float> values, double share,
                                  RandomStream& random, std::span<std::uint32_t> words) const {
  const std::int64_t base = 2 * std::int64_t(limit_) + 1;
  std::size_t at = 0;
  for (const float value : values) {
    const double clamped = std::clamp(double(value), -kStatisticsClip, kStatisticsClip);
    auto rest = round_stochastically(clamped * share * (kStatisticsSteps / kStatisticsClip),
                                     random.bits32());
    for (std::size_t d = 0; d < digits_; ++d) {
      auto digit = rest % base;
      if (digit > limit_) digit -= base;
      if (digit < -std::int64_t(limit_)) digit += base;
      words[at++] = ring(digit);
      rest = (rest - digit) / base;
    }
  }
}

Result<std::vector<std::uint32_t>> RingCodec::encode(std::span<const float> delta,
                                                     std::uint64_t samples, const RingRound& round,
                                                     RandomStream rounding, ErrorFeedback& memory,
                                                     std::vector<Fidelity>* fidelity) const {
  if (!options_.fidelity) fidelity = nullptr;
  if (!std::ranges::all_of(delta, [](float x) { return std::isfinite(x); }))
    return fail(Code::kInvalid, "the update has a value that is not finite: training diverged");
  auto values = gather(weights_, delta);
  if (options_.error_feedback && memory.memory().size() == values.size())
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += memory.memory()[i];
  const auto truth = fidelity ? values : std::vector<float>();
  clip(values, options_.clip);
  const double share = double(weight_of(samples)) / double(max_weight());
  std::vector<std::uint32_t> words(this->words());
  const auto indices = kept(round);
  std::vector<float> sent(floats_);
  for (std::size_t i = 0; i < floats_; ++i)
    sent[i] = float(share * values[indices.empty() ? i : indices[i]]);
  round_weights(sent, round, rounding, std::span(words).first(rotated()));
  encode_statistics(gather(statistics_, delta), share, rounding,
                    std::span(words).subspan(rotated()));
  if (!fidelity && !options_.error_feedback) return words;
  const auto arrived = decode_weights(words, share, round);
  if (fidelity) {
    *fidelity = {measure_fidelity("clip", truth, values)};
    if (floats_ < weights_.size)
      fidelity->push_back(measure_fidelity("random-k", truth, spread(sent, round, 1 / share)));
    fidelity->push_back(measure_fidelity("round", truth, arrived));
  }
  if (options_.error_feedback) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] -= arrived[i];
    memory.restore(std::move(values));
  }
  return words;
}

Bytes RingCodec::pack(const RingUpdate& update) const {
  if (update.words.size() != words() || update.totals.size() != totals())
    throw std::logic_error("ring: an update of another codec");
  auto bytes = pack_words(update.words, options_.ring_bits);
  ByteWriter(bytes).put(std::as_bytes(std::span(update.totals)));
  return bytes;
}

std::vector<std::string> RingCodec::stages() const {
  if (!options_.fidelity) return {};
  if (floats_ == weights_.size) return {"clip", "round"};
  return {"clip", "random-k", "round"};
}

std::vector<float> RingCodec::spread(std::span<const float> sent, const RingRound& round,
                                     double factor) const {
  if (!options_.error_feedback) factor *= double(weights_.size) / double(floats_);
  const auto indices = kept(round);
  std::vector<float> all(weights_.size);
  for (std::size_t i = 0; i < sent.size(); ++i)
    all[indices.empty() ? i : indices[i]] = float(factor * sent[i]);
  return all;
}

std::vector<float> RingCodec::decode_weights(std::span<const std::uint32_t> sum, double share,
                                             const RingRound& round) const {
  std::vector<float> sent(floats_);
  const double step = 1 / (scale_ * share);
  transform_.inverse(sent, round.seed, round.round,
                     [&](std::size_t offset, std::span<float> chunk) {
                       for (std::size_t i = 0; i < chunk.size(); ++i)
                         chunk[i] = float(step * centred(sum[offset + i]));
                     });
  return floats_ == weights_.size ? sent : spread(sent, round, 1);
}

std::vector<float> RingCodec::decode_statistics(std::span<const std::uint32_t> sum, double share) const {
  std::vector<float> values(statistics_.size);
  const double base = 2.0 * limit_ + 1;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double steps = 0;
    for (std::size_t d = digits_; d-- > 0;) steps = steps * base + centred(sum[i * digits_ + d]);
    values[i] = float(steps * (kStatisticsClip / kStatisticsSteps) / share);
  }
  return values;
}

std::vector<float> RingCodec::decode(std::span<const std::uint32_t> sum, std::uint64_t weight,
                                     const RingRound& round) const {
  const double share = double(weight) / double(max_weight());
  std::vector<float> delta(space_size_);
  scatter(weights_, decode_weights(sum, share, round), delta);
  scatter(statistics_, decode_statistics(sum.subspan(rotated()), share), delta);
  return delta;
}

}  // namespace preceptor::compression
