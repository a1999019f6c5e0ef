#pragma once
#include <torch/nn.h>

#include "common/random.h"
#include "models/adaptable.h"

namespace preceptor::models::transformer {

/// What Transformers start linear layers, tokens and position embeddings from. Their papers' code calls it a truncated
/// normal, but cuts it at ±2, a hundred deviations away.
constexpr double kDeviation = 0.02;

/// Fills a parameter with N(0, deviation²), in place.
inline void draw(torch::Tensor& parameter, double deviation, RandomStream& random) {
  std::vector<float> values(std::size_t(parameter.numel()));
  for (auto& value : values) value = float(deviation * random.normal());
  parameter.copy_(torch::from_blob(values.data(), parameter.sizes()));
}

inline void draw_linear_layers(const torch::nn::Module& network, RandomStream& random) {
  for (const auto& module : network.modules(/*include_self=*/false))
    if (auto* linear = module->as<Linear>()) draw(linear->weight, kDeviation, random);
}

}  // namespace preceptor::models::transformer
