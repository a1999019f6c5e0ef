#include "compression/update/update.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

/// Stages of round `round` of `warm_up`: topk keeps fraction^((round + 1) / (warm_up + 1)), which
/// for 0.001 in four rounds is 25, 6.3, 1.6 and 0.4 %. Three digits, the same at every site.
std::vector<CodecSettings> warming(std::vector<CodecSettings> stages, int round, int warm_up) {
  for (auto& stage : stages) {
    const auto codec = stage.find("codec");
    if (codec == stage.end() || codec->second != "topk") continue;
    const auto set = stage.find("fraction");
    const auto fraction = set == stage.end() ? 0.1 : std::strtod(set->second.c_str(), nullptr);
    if (fraction > 0 && fraction < 1)
      stage["fraction"] =
          fmt::format("{:.3g}", std::pow(fraction, double(round + 1) / double(warm_up + 1)));
  }
  return stages;
}

bool has(const std::vector<CodecSettings>& stages, const char* name) {
  return std::ranges::any_of(stages, [&](const CodecSettings& stage) {
    const auto codec = stage.find("codec");
    return codec != stage.end() && codec->second == name;
  });
}

/// Takes the first stage off where it is a transform.
Result<std::unique_ptr<Transform>> take_transform(std::vector<CodecSettings>& stages,
                                                  const std::vector<Piece>& pieces,
                                                  bool statistics) {
  for (const auto& name : transforms().names()) {
    if (!has(stages, name.c_str())) continue;
    if (statistics)
      return fail(Code::kInvalid, "{}: statistics are too few and too delicate for it", name);
    if (has({stages.begin() + 1, stages.end()}, name.c_str()))
      return fail(Code::kInvalid, "{}: works on the whole update; place it first", name);
  }
  if (stages.empty() || !stages[0].contains("codec")) return nullptr;
  auto settings = stages[0];
  const auto name = settings.extract("codec").mapped();
  const auto factory = transforms().find(name);
  if (!factory) return nullptr;  // a codec, or unknown to both: the pipeline tells
  auto made = (**factory)(settings, pieces);
  if (!made) return in("stage 1 (" + name + ")", made.error());
  stages.erase(stages.begin());
  return made;
}

}  // namespace

std::vector<CodecSettings> plain_profile(int bits) {
  return {{{"codec", "eden"}, {"bits", std::to_string(bits)}}};
}

Result<UpdateCodec> UpdateCodec::create(const UpdateOptions& options, const ParameterSpace& space) {
  const auto& dgc = options.dgc;
  if (!options.error_feedback && (dgc.momentum > 0 || dgc.clip_norm > 0))
    return fail(Code::kInvalid, "dgc: momentum correction and clipping need error_feedback: true");
  if (dgc.momentum < 0 || dgc.momentum >= 1 || !(dgc.clip_norm >= 0) || dgc.warm_up < 0 ||
      dgc.warm_up > 100)
    return fail(Code::kInvalid, "dgc: momentum is in [0, 1), clip_norm >= 0, warm_up 0 to 100");
  if (dgc.warm_up > 0 && !has(options.weights, "topk"))
    return fail(Code::kInvalid, "dgc: warm_up is of topk, which is no stage of weights");
  UpdateCodec codec;
  codec.error_feedback_ = options.error_feedback;
  codec.dgc_ = dgc;
  codec.model_size_ = space.size();
  codec.weights_ = TRY(make_section(options.weights, dgc.warm_up, space, false));
  codec.statistics_ = TRY(make_section(options.statistics, 0, space, true));
  if (codec.weights_.linear() && options.error_feedback)
    return fail(Code::kInvalid,
                "its weights add up coded, and what is left out is the coordinator's to remember: "
                "error_feedback must be false");
  return codec;
}

Result<UpdateCodec::Section> UpdateCodec::make_section(const std::vector<CodecSettings>& stages,
                                                       int warm_up, const ParameterSpace& space,
                                                       bool statistics) {
  Section section;
  for (const auto& piece : space.pieces()) {
    if (is_frozen(piece.role) || is_statistic(piece.role) != statistics) continue;
    section.pieces.push_back(piece);
    section.size += piece.size;
  }
  auto rest = stages;
  section.transform = TRY(take_transform(rest, section.pieces, statistics));
  if (section.transform) section.transform_name = stages[0].at("codec");
  for (int round = 0; round < warm_up; ++round)
    section.pipelines.push_back(TRY(Pipeline::create(warming(rest, round, warm_up))));
  section.pipelines.push_back(TRY(Pipeline::create(rest)));
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

Result<Bytes> UpdateCodec::Section::encode(std::span<const float> values, std::uint64_t seed,
                                           std::uint64_t round, Transform::Memory& memory) const {
  const auto which = std::min<std::size_t>(round, pipelines.size() - 1);
  Bytes bytes;
  if (pipelines.size() > 1) bytes.push_back(std::byte(which));
  std::vector<float> coded;
  if (transform) {
    coded = transform->encode(values, seed, memory);
    if (!all_finite(coded))
      return fail(Code::kInvalid, "the update's values are too large to be coded: training diverged");
    values = coded;
  }
  const auto encoded = pipelines[which].encode(values, seed);
  if (bytes.empty()) return encoded;
  ByteWriter(bytes).put(encoded);
  return bytes;
}

Result<const Pipeline*> UpdateCodec::Section::pipeline_of(std::span<const std::byte>& bytes) const {
  if (pipelines.size() == 1) return &pipelines[0];
  if (bytes.empty() || std::to_integer<std::size_t>(bytes[0]) >= pipelines.size())
    return fail(Code::kCorrupt, "of no round of the warm-up");
  const auto* chosen = &pipelines[std::to_integer<std::size_t>(bytes[0])];
  bytes = bytes.subspan(1);
  return chosen;
}

Result<void> UpdateCodec::Section::decode(std::span<const std::byte> bytes,
                                          const Fold& fold) const {
  const auto* pipeline = TRY(pipeline_of(bytes));
  if (!transform) return pipeline->decode(bytes, size, fold);
  const auto floats = TRY(pipeline->decode(bytes, coded()));
  Transform::Memory none;
  return transform->decode(floats, none, fold);
}

Result<Bytes> UpdateCodec::encode(std::span<const float> delta, std::uint64_t seed,
                                  ErrorFeedback& memory) const {
  if (!all_finite(delta))
    return fail(Code::kInvalid, "the update has a value that is not finite: training diverged");
  auto basis = memory.basis;
  const auto coded = [&](std::span<const float> values) {
    return weights_.encode(values, seed, memory.updates, basis);
  };
  const auto weights = gather(weights_, delta);
  const auto first =
      error_feedback_
          ? TRY(memory.encode({coded,
                               [&](const Bytes& bytes, const Fold& fold) {
                                 return weights_.decode(bytes, fold);
                               }},
                              weights, dgc_))
          : TRY(coded(weights));
  const auto second =
      statistics_.pipelines[0].encode(gather(statistics_, delta), seed + 1);
  memory.basis = std::move(basis);
  ++memory.updates;
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
  auto first = TRY(reader.take(length));
  if (weights_.linear()) {
    const auto* pipeline = TRY(weights_.pipeline_of(first));
    TRY(pipeline->decode(first, weights_.coded(), [&](std::size_t offset, std::span<const float> f) {
      return fold(model_size_ + offset, f);
    }));
  } else {
    TRY(weights_.decode(first, scatter(weights_, fold)));
  }
  return statistics_.decode(TRY(reader.take(reader.left())), scatter(statistics_, fold));
}

UpdateCodec::Fold UpdateCodec::scatter(const Section& section, const Fold& fold) {
  // piece, inside: where the next float belongs
  return [&section, &fold, piece = std::size_t{0}, inside = std::size_t{0}](
             std::size_t, std::span<const float> floats) mutable -> Result<void> {
    while (!floats.empty()) {
      const auto& target = section.pieces[piece];
      const auto count = std::min(floats.size(), target.size - inside);
      if (count > 0) TRY(fold(target.offset + inside, floats.first(count)));
      floats = floats.subspan(count);
      inside += count;
      if (inside == target.size) ++piece, inside = 0;
    }
    return {};
  };
}

std::size_t UpdateCodec::sum_size() const {
  return model_size_ + (weights_.linear() ? weights_.coded() : 0);
}

Result<void> UpdateCodec::settle(std::span<float> mean, Transform::Memory& memory) const {
  if (!weights_.linear()) return {};
  const Fold into_place = [&](std::size_t offset, std::span<const float> floats) -> Result<void> {
    std::ranges::copy(floats, mean.begin() + std::ptrdiff_t(offset));
    return {};
  };
  return weights_.transform->decode(mean.subspan(model_size_), memory,
                                    scatter(weights_, into_place));
}

std::size_t UpdateCodec::Section::size_bound() const {
  std::size_t most = 0;
  for (const auto& pipeline : pipelines) most = std::max(most, pipeline.size_bound(coded()));
  return most + (pipelines.size() > 1 ? 1 : 0);
}

std::size_t UpdateCodec::size_bound() const {
  return 8 + weights_.size_bound() + statistics_.size_bound();
}

}  // namespace preceptor::compression
