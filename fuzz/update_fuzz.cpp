// UpdateCodec::decode, where a transform or a warm-up stands in front of the pipeline. First byte:
// which codec; the rest: a coded update.
#include <cmath>
#include <cstdlib>

#include "compression/update/update.h"
#include "fuzz/fuzz.h"

using namespace preceptor;
using compression::UpdateCodec;

namespace {

const ParameterSpace& space() {
  static const ParameterSpace kSpace = [] {
    ParameterSpace made;
    made.add("conv.weight", {8, 9, 3, 3}, Role::kWeight);
    made.add("conv.bias", {8}, Role::kBias);
    made.add("norm.running_mean", {8}, Role::kNormMean);
    return made;
  }();
  return kSpace;
}

const std::vector<UpdateCodec>& codecs() {
  static const std::vector<UpdateCodec> kAll = [] {
    std::vector<UpdateCodec> all;
    for (const auto& weights : std::vector<std::vector<compression::CodecSettings>>{
             {{{"codec", "powersgd"}, {"rank", "2"}}},
             {{{"codec", "powersgd"}, {"rank", "1"}}, {{"codec", "eden"}}},
             {{{"codec", "fetchsgd"}, {"rows", "3"}}, {{"codec", "cast16"}}},
             {{{"codec", "topk"}, {"fraction", "0.01"}}, {{"codec", "zstd"}}}}) {
      compression::UpdateOptions options;
      options.weights = weights;
      options.error_feedback = false;
      options.dgc.warm_up = weights[0].at("codec") == "topk" ? 2 : 0;
      all.push_back(UpdateCodec::create(options, space()).value());
    }
    return all;
  }();
  return kAll;
}

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::size_t i = 0; i < codecs().size(); ++i) {
    std::vector<float> update(space().size());
    for (std::size_t j = 0; j < update.size(); ++j)
      update[j] = std::sin(float(j * j)) / float(1 + j % 7);
    compression::ErrorFeedback memory;
    std::vector<std::uint8_t> seed{std::uint8_t(i)};
    const auto bytes = codecs()[i].encode(update, 1, memory).value();
    for (const auto b : bytes)
      seed.push_back(std::to_integer<std::uint8_t>(b));
    all.push_back(std::move(seed));
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto& codec = codecs()[data[0] % codecs().size()];
  const auto given = std::as_bytes(std::span(data, size).subspan(1));
  std::size_t floats = 0;
  const auto done = codec.decode(given, [&](std::size_t offset, auto part) -> Result<void> {
    if (offset + part.size() > codec.sum_size()) std::abort();
    floats += part.size();
    return {};
  });
  const auto all = codec.sum_size() == space().size() ? space().size() : codec.sum_size() - 656;
  if (done && floats != all) std::abort();
  return 0;
}
