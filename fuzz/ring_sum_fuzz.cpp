// check_unmasked and RingSum, at the coordinator of the secure profile. First byte: which codec;
// the rest: a site's update, packed words and totals.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "compression/update/ring_sum.h"
#include "fuzz/fuzz.h"

using namespace preceptor;
using namespace preceptor::compression;

namespace {

const ParameterSpace& space() {
  static const ParameterSpace kSpace = [] {
    ParameterSpace made;
    made.add("conv.weight", {8, 9, 3, 3}, Role::kWeight);
    made.add("norm.running_mean", {8}, Role::kNormMean);
    made.add("base.weight", {10}, Role::kFrozen);
    made.add("norm.running_var", {8}, Role::kNormVariance);
    return made;
  }();
  return kSpace;
}

/// Words of odd widths, whose last byte is padded; without statistics or totals; some coordinates;
/// with noise.
const std::vector<RingCodec>& ring_codecs() {
  static const std::vector<RingCodec> kAll = [] {
    std::vector<RingCodec> all;
    for (const auto& options : std::vector<RingOptions>{
             {.max_nodes = 8, .histograms = 1},
             {.bits = 5, .max_nodes = 3, .fidelity = false},
             {.bits = 16, .ring_bits = 32, .max_nodes = 8, .keep = 0.1, .weights = "none"},
             {.bits = 4, .max_nodes = 2, .statistics = "keep", .beta = 0.5},
             {.bits = 8, .max_nodes = 8, .statistics = "keep", .noise = 20}})
      all.push_back(RingCodec::create(options, space()).value());
    return all;
  }();
  return kAll;
}

constexpr RingRound kRound{11, 3};

/// Eight words end at a byte, whatever their width.
RingSum sum_of_chunks(const RingCodec& codec, std::span<const std::byte> update) {
  RingSum sum(codec);
  const auto packed = update.first(codec.packed_words());
  const auto step = std::size_t(codec.options().ring_bits) * 3;  // 24 words
  for (std::size_t at = 0; at < packed.size(); at += step)
    sum.add(at / step * 24, packed.subspan(at, std::min(step, packed.size() - at)));
  return sum;
}

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::size_t i = 0; i < ring_codecs().size(); ++i) {
    const auto& codec = ring_codecs()[i];
    std::vector<float> delta(space().size());
    for (std::size_t j = 0; j < delta.size(); ++j)
      delta[j] = std::sin(float(j * j)) / float(1 + j % 7) / 20;
    ErrorFeedback memory;
    Totals totals;
    totals.samples = 100;
    totals.weight = codec.weight_of(100);
    totals.loss = 50;
    totals.fidelity.resize(codec.stages().size());
    totals.scores.resize(codec.histograms());
    const auto words =
        codec.encode(delta, 100, kRound, RandomStream(1, "rounding"), memory).value();
    std::vector<std::uint8_t> seed{std::uint8_t(i)};
    for (const auto b : codec.pack({words, totals.encode()}))
      seed.push_back(std::to_integer<std::uint8_t>(b));
    all.push_back(std::move(seed));
  }
  return all;
}

/// What the check lets through is a sum that closes, with a mean that is finite. What a mask would
/// hide comes unchecked: any bytes of the right length add up, in chunks as at once.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto& codec = ring_codecs()[data[0] % ring_codecs().size()];
  const auto update = std::as_bytes(std::span(data, size).subspan(1));
  const bool honest = check_unmasked(codec, update).has_value();
  if (update.size() != codec.size()) {
    if (honest) std::abort();
    return 0;
  }
  RingSum sum(codec);
  sum.add(update);
  auto chunks = sum_of_chunks(codec, update);
  if (!std::ranges::equal(sum.words(), chunks.words())) std::abort();
  const auto closed = sum.close(kRound);
  if (honest && !closed) std::abort();
  if (closed && !std::ranges::all_of(closed->mean, [](float x) { return std::isfinite(x); }))
    std::abort();
  return 0;
}
