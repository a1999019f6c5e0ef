// Pipeline::decode, over every kind of stage. First byte: the pipeline; the rest: an encoded
// update.
#include <cmath>
#include <cstdlib>

#include "compression/update/pipeline.h"
#include "fuzz/fuzz.h"

using preceptor::compression::Pipeline;

namespace {

constexpr std::size_t kFloats = 600;

const std::vector<Pipeline>& pipelines() {
  static const std::vector<Pipeline> kAll = [] {
    std::vector<Pipeline> all;
    for (const auto& stages : std::vector<std::vector<preceptor::compression::CodecSettings>>{
             {},
             {{{"codec", "cast16"}, {"format", "fp16"}}},
             {{{"codec", "quantize"}, {"bits", "4"}, {"block", "64"}}},
             {{{"codec", "topk"}, {"fraction", "0.2"}}},
             {{{"codec", "zstd"}}},
             {{{"codec", "eden"}, {"bits", "3"}, {"chunk", "128"}}},
             {{{"codec", "qsgd"}, {"levels", "3"}, {"bucket", "100"}}},
             {{{"codec", "sign"}, {"bucket", "64"}}},
             {{{"codec", "topk"}, {"fraction", "0.5"}},
              {{"codec", "quantize"}},
              {{"codec", "zstd"}}}})
      all.push_back(Pipeline::create(stages).value());
    return all;
  }();
  return kAll;
}

}  // namespace

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (std::size_t i = 0; i < pipelines().size(); ++i) {
    std::vector<float> update(kFloats);
    for (std::size_t j = 0; j < kFloats; ++j) update[j] = std::sin(float(j * j)) / float(1 + j % 7);
    const auto bytes = pipelines()[i].encode(update, 1);
    std::vector<std::uint8_t> seed{std::uint8_t(i)};
    for (const auto b : bytes) seed.push_back(std::to_integer<std::uint8_t>(b));
    all.push_back(std::move(seed));
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto& pipeline = pipelines()[data[0] % pipelines().size()];
  const auto decoded = pipeline.decode(std::as_bytes(std::span(data, size).subspan(1)), kFloats);
  if (decoded && decoded->size() != kFloats) std::abort();
  return 0;
}
