#include "compression/update/update.h"

#include <algorithm>

#include "compression/update/passes.h"

namespace preceptor::compression {

Result<UpdateCodec> UpdateCodec::create(const UpdateOptions& options, const ParameterSpace& space) {
  UpdateCodec codec;
  codec.error_feedback_ = options.error_feedback;
  codec.weights_ = make_section(TRY(Pipeline::create(options.weights)), space, false);
  codec.statistics_ = make_section(TRY(Pipeline::create(options.statistics)), space, true);
  return codec;
}

UpdateCodec::Section UpdateCodec::make_section(Pipeline pipeline, const ParameterSpace& space,
                                               bool statistics) {
  Section section{std::move(pipeline), {}, 0};
  for (const auto& piece : space.pieces()) {
    if (is_frozen(piece.role) || is_statistic(piece.role) != statistics) continue;
    section.pieces.push_back(piece);
    section.size += piece.size;
  }
  return section;
}

std::vector<float> UpdateCodec::gather(const Section& section, std::span<const float> delta) {
  std::vector<float> values;
  values.reserve(section.size);
  for (const auto& piece : section.pieces) {
    const auto part = delta.subspan(piece.offset, piece.size);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

Result<Bytes> UpdateCodec::encode(std::span<const float> delta, std::uint64_t seed,
                                  ErrorFeedback& memory) const {
  if (!all_finite(delta))
    return fail(Code::kInvalid, "the update has a value that is not finite: training diverged");
  const auto weights = gather(weights_, delta);
  const auto first = error_feedback_ ? TRY(memory.encode(weights_.pipeline, weights, seed))
                                     : weights_.pipeline.encode(weights, seed);
  const auto second = statistics_.pipeline.encode(gather(statistics_, delta), seed + 1);
  Bytes bytes;
  ByteWriter writer(bytes);
  writer.put(std::uint64_t(first.size()));
  writer.put(first);
  writer.put(second);
  return bytes;
}

Result<void> UpdateCodec::decode(std::span<const std::byte> bytes, const Fold& fold) const {
  ByteReader reader(bytes);
  const auto length = TRY(reader.get<std::uint64_t>());
  const auto first = TRY(reader.take(length));
  TRY(scatter(weights_, first, fold));
  return scatter(statistics_, TRY(reader.take(reader.left())), fold);
}

Result<void> UpdateCodec::scatter(const Section& section, std::span<const std::byte> bytes,
                                  const Fold& fold) {
  std::size_t piece = 0, inside = 0;  // where the next float belongs
  return section.pipeline.decode(
      bytes, section.size, [&](std::size_t, std::span<const float> floats) -> Result<void> {
        while (!floats.empty()) {
          const auto& target = section.pieces[piece];
          const auto count = std::min(floats.size(), target.size - inside);
          if (count > 0) TRY(fold(target.offset + inside, floats.first(count)));
          floats = floats.subspan(count);
          inside += count;
          if (inside == target.size) ++piece, inside = 0;
        }
        return {};
      });
}

std::size_t UpdateCodec::size_bound() const {
  return 8 + weights_.pipeline.size_bound(weights_.size) +
         statistics_.pipeline.size_bound(statistics_.size);
}

}  // namespace preceptor::compression
