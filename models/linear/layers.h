#pragma once
#include <span>

#include "common/random.h"
#include "models/layers.h"

/// What the models of linear complexity share: tokens, and first values that the common rule does not know.
namespace preceptor::models {

// Tokens are [B, H, W, C]: the same memory as images in channels_last, so that changing over is free.
inline torch::Tensor to_tokens(const torch::Tensor& images) { return images.permute({0, 2, 3, 1}); }
inline torch::Tensor to_images(const torch::Tensor& tokens) { return tokens.permute({0, 3, 1, 2}); }

inline torch::nn::LayerNorm layer_norm(int width, double epsilon = 1e-5) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({width}).eps(epsilon));
}
inline Linear linear(int in, int out, bool bias = true) {
  return Linear(torch::nn::LinearOptions(in, out).bias(bias));
}
/// A convolution with a bias whose output has as many pixels a side as its input, over the stride.
inline Conv2d token_conv(int in, int out, int kernel, int stride = 1, int groups = 1) {
  return Conv2d(torch::nn::Conv2dOptions(in, out, kernel).stride(stride).padding(kernel / 2).groups(groups));
}
/// One token a patch; what is left of an image at its right and lower edge belongs to none.
inline Conv2d patch_conv(int in, int out, int patch) {
  return Conv2d(torch::nn::Conv2dOptions(in, out, patch).stride(patch));
}

/// tensor[i] = value(i), i over its elements in row-major order. One by one in double, so that every machine gets the
/// same bits.
template <class Value>
void set_values(const torch::Tensor& tensor, Value value) {
  const auto values = torch::empty(tensor.sizes(), torch::kFloat32);
  std::int64_t i = 0;
  for (auto& x : std::span(values.data_ptr<float>(), std::size_t(values.numel()))) x = float(value(i++));
  tensor.copy_(values);
}
inline void draw_normal(const torch::Tensor& tensor, double deviation, RandomStream& random) {
  set_values(tensor, [&](auto) { return deviation * random.normal(); });
}
inline void draw_uniform(const torch::Tensor& tensor, double bound, RandomStream& random) {
  set_values(tensor, [&](auto) { return random.uniform(-bound, bound); });
}

/// N(0, 0.02) for the weights of every module of that kind: the usual rule for networks of tokens.
template <class Layer>
void draw_weights(torch::nn::Module& network, RandomStream& random) {
  for (const auto& module : network.modules(/*include_self=*/false))
    if (const auto* layer = module->as<Layer>()) draw_normal(layer->weight, 0.02, random);
}

}  // namespace preceptor::models
