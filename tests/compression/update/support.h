#pragma once
#include <gtest/gtest.h>

#include <cmath>

#include "common/hash.h"
#include "compression/update/update.h"

namespace preceptor::compression::test {

/// Gaussian values whose scale changes every 1000 floats, as layers differ in a real update.
inline std::vector<float> layered_update(std::size_t count, std::uint64_t seed = 1) {
  RandomStream random(seed, "layered_update");
  std::vector<float> values(count);
  double scale = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 1000 == 0) scale = std::pow(10.0, random.uniform(-4, -1));
    values[i] = float(scale * random.normal());
  }
  return values;
}

inline Pipeline make(const std::vector<CodecSettings>& stages) {
  auto pipeline = Pipeline::create(stages);
  if (!pipeline) throw std::logic_error(pipeline.error().message);
  return std::move(*pipeline);
}

/// ||a - b||^2 / ||a||^2: the vNMSE when a is the input and b what came out.
inline double relative_error(std::span<const float> a, std::span<const float> b) {
  double lost = 0, all = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    lost += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    all += double(a[i]) * a[i];
  }
  return lost / all;
}

/// Pipelines that a plan may hold; each test that must hold for all of them walks this table.
inline const std::vector<std::vector<CodecSettings>>& pipelines() {
  static const std::vector<std::vector<CodecSettings>> kTable{
      {},
      {{{"codec", "zstd"}}},
      {{{"codec", "cast16"}}, {{"codec", "zstd"}}},
      {{{"codec", "cast16"}, {"format", "fp16"}}},
      {{{"codec", "quantize"}}},
      {{{"codec", "quantize"}}, {{"codec", "zstd"}}},
      {{{"codec", "quantize"}, {"bits", "4"}, {"block", "64"}}},
      {{{"codec", "quantize"}, {"bits", "2"}}, {{"codec", "zstd"}, {"level", "9"}}},
      {{{"codec", "eden"}}},
      {{{"codec", "eden"}, {"bits", "1"}, {"chunk", "64"}, {"scale", "least"}}, {{"codec", "zstd"}}},
      {{{"codec", "qsgd"}, {"levels", "5"}, {"bucket", "100"}, {"norm", "max"}}},
      {{{"codec", "qsgd"}, {"levels", "1"}}, {{"codec", "zstd"}}},
      {{{"codec", "sign"}, {"bucket", "16"}}},
      {{{"codec", "topk"}, {"fraction", "0.05"}}, {{"codec", "eden"}, {"bits", "4"}}},
      {{{"codec", "topk"}}},
      {{{"codec", "topk"}, {"fraction", "0.01"}}, {{"codec", "cast16"}, {"format", "fp16"}}},
      {{{"codec", "topk"}, {"fraction", "0.1"}},
       {{"codec", "quantize"}, {"bits", "4"}},
       {{"codec", "zstd"}}},
      {{{"codec", "topk"}, {"fraction", "1"}},
       {{"codec", "topk"}, {"fraction", "0.5"}},
       {{"codec", "zstd"}}},
  };
  return kTable;
}

/// "topk fraction=0.1 | quantize bits=4", for messages.
inline std::string describe(const std::vector<CodecSettings>& stages) {
  std::string text;
  for (const auto& stage : stages) {
    text += (text.empty() ? "" : " | ") + stage.at("codec");
    for (const auto& [key, value] : stage)
      if (key != "codec") text += " " + key + "=" + value;
  }
  return text.empty() ? "fp32" : text;
}

inline UpdateOptions options_of(std::vector<CodecSettings> weights, bool feedback) {
  UpdateOptions options;
  options.weights = std::move(weights);
  options.statistics = {};
  options.error_feedback = feedback;
  return options;
}

inline Result<void> ignore(std::size_t, std::span<const float>) { return {}; }

}  // namespace preceptor::compression::test
