#pragma once
#include <cmath>
#include <span>

#include "common/random.h"
#include "models/layers.h"

namespace preceptor::models {

inline Conv2d biased_conv(int in, int out, int kernel, int stride = 1, int groups = 1) {
  return Conv2d(torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).groups(groups));
}

inline torch::Tensor upsample2(const torch::Tensor& x) {
  return torch::upsample_bilinear2d(x, {2 * x.size(2), 2 * x.size(3)}, /*align_corners=*/false);
}

/// Poolings that a stem leaves out, from the first on.
inline int left_out(const std::string& stem) { return stem == "small" ? 2 : stem == "half" ? 1 : 0; }

/// N(0, deviation) in place.
inline void draw(torch::Tensor& weight, double deviation, RandomStream& random) {
  auto values = torch::empty(weight.sizes(), torch::kFloat32);
  for (auto& value : std::span(values.data_ptr<float>(), std::size_t(values.numel()))) value = float(deviation * random.normal());
  weight.copy_(values);
}

/// First values where the common rule's fan-out, that of the whole layer, is far off: a grouped convolution has the
/// fan-out of one group; a head with few classes would start with large logits. LibTorch's own deviation serves there;
/// a much smaller one lets the many background pixels turn all weights behind a ReLU negative, so that no logit is > 0.
inline void draw_grouped_and_head(torch::nn::Module& network, Conv2d& head, RandomStream& random) {
  for (auto& module : network.modules(/*include_self=*/false)) {
    const auto* conv = module->as<Conv2d>();
    if (!conv || conv->options.groups() == 1) continue;
    auto weight = conv->weight;
    draw(weight, std::sqrt(2.0 / double(weight.numel() / weight.size(1) / conv->options.groups())), random);
  }
  draw(head->weight, std::sqrt(1.0 / (3.0 * double(head->weight.size(1)))), random);
}

}  // namespace preceptor::models
