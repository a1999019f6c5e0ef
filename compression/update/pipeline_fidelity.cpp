#include <algorithm>

#include "compression/update/pipeline.h"
#include "compression/update/update.h"

namespace preceptor::compression {

std::vector<Fidelity> Pipeline::fidelity(std::span<const float> update, std::uint64_t seed) const {
  std::vector<std::vector<float>> decoded(stages_.size());
  for (auto& values : decoded) values.reserve(update.size());
  for (std::size_t at = 0; at < update.size(); at += kTile) {
    const auto tile = update.subspan(at, std::min(kTile, update.size() - at));
    Packet packet{{tile.begin(), tile.end()}, {}};
    RandomStream random(seed, "codec", {at / kTile});
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      stages_[s]->encode(packet, random);
      auto copy = packet;
      for (auto back = s + 1; back-- > 0;)
        if (const auto undone = stages_[back]->decode(copy, tile.size()); !undone)
          throw std::logic_error("a tile of our own does not decode: " + undone.error().message);
      decoded[s].insert(decoded[s].end(), copy.values.begin(), copy.values.end());
    }
  }
  std::vector<Fidelity> measured;
  for (std::size_t s = 0; s < stages_.size(); ++s)
    measured.push_back(measure_fidelity(names_[s], update, decoded[s]));
  return measured;
}

std::vector<Fidelity> UpdateCodec::fidelity(std::span<const float> delta, std::uint64_t seed,
                                            const ErrorFeedback& memory) const {
  auto weights = gather(weights_, delta);
  if (error_feedback_ && memory.memory().size() == weights.size())
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] += memory.memory()[i];
  const auto& pipeline = weights_.pipelines[std::min<std::size_t>(memory.updates, weights_.pipelines.size() - 1)];
  if (!weights_.transform) return pipeline.fidelity(weights, seed);
  auto basis = memory.basis;
  const auto coded = weights_.transform->encode(weights, seed, basis);
  std::vector<float> decoded;
  Transform::Memory none;
  const auto undone = weights_.transform->decode(coded, none, [&](std::size_t, std::span<const float> floats) -> Result<void> {
    decoded.insert(decoded.end(), floats.begin(), floats.end());
    return {};
  });
  if (!undone) throw std::logic_error("an update of our own does not decode: " + undone.error().message);
  auto measured = pipeline.fidelity(coded, seed);
  measured.insert(measured.begin(), measure_fidelity(weights_.transform_name, weights, decoded));
  return measured;
}

}  // namespace preceptor::compression
