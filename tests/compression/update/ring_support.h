#pragma once
#include <numeric>

#include "compression/update/ring_sum.h"
#include "compression/update/ring_words.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test::ring {

/// About `floats` weights with statistics and a frozen piece between them.
inline ParameterSpace made_space(std::int64_t floats) {
  ParameterSpace space;
  space.add("conv.weight", {floats / 2}, Role::kWeight);
  space.add("norm.running_mean", {5}, Role::kNormMean);
  space.add("base.weight", {7}, Role::kFrozen);
  space.add("fc.weight", {floats - floats / 2}, Role::kWeight);
  space.add("norm.running_var", {5}, Role::kNormVariance);
  return space;
}

inline RingCodec make(RingOptions options, const ParameterSpace& space) {
  if (options.max_nodes == 0) options.max_nodes = 8;
  auto codec = RingCodec::create(options, space);
  if (!codec) throw std::logic_error(codec.error().message);
  return std::move(*codec);
}

inline const RingRound kRound{11, 3};

inline std::vector<std::uint32_t> encode(const RingCodec& codec, std::span<const float> delta,
                                  std::uint64_t node = 0, std::uint64_t samples = 1000) {
  ErrorFeedback memory;
  return codec.encode(delta, samples, kRound, RandomStream(node, "rounding"), memory).value();
}

inline double norm(std::span<const float> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

/// A layered update of norm `c`, with zeros where nothing trains.
inline std::vector<float> made_delta(const ParameterSpace& space, double c, std::uint64_t seed = 1) {
  auto delta = layered_update(space.size(), seed);
  for (const auto& piece : space.pieces())
    if (piece.role != Role::kWeight)
      std::fill_n(delta.begin() + std::ptrdiff_t(piece.offset), piece.size, 0.0f);
  const auto factor = float(c / norm(delta));
  for (auto& x : delta) x *= factor;
  return delta;
}

inline Bytes update_of(const RingCodec& codec, std::span<const float> delta, std::uint64_t node,
                std::uint64_t samples = 1000) {
  Totals totals;
  totals.samples = samples;
  totals.weight = codec.weight_of(samples);
  totals.loss = 0.5 * double(samples);
  totals.scores.resize(codec.histograms());
  totals.fidelity.resize(codec.stages().size());
  return codec.pack({encode(codec, delta, node, samples), totals.encode()});
}

}  // namespace preceptor::compression::test::ring
