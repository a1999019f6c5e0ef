#pragma once
#include "models/layers.h"

namespace preceptor::models {

/// Channels weighted by what the whole image shows (Hu 2017, arXiv:1709.01507): pool, 1×1, ReLU, 1×1, gate.
class SqueezeExciteImpl : public torch::nn::Module {
 public:
  using Gate = torch::Tensor (*)(const torch::Tensor&);
  SqueezeExciteImpl(int channels, Gate gate) : gate_(gate) {
    const int squeezed = make_divisible(channels / 4);
    fc1_ = register_module("fc1", Conv2d(torch::nn::Conv2dOptions(channels, squeezed, 1)));
    fc2_ = register_module("fc2", Conv2d(torch::nn::Conv2dOptions(squeezed, channels, 1)));
  }
  torch::Tensor forward(const torch::Tensor& x) { return x * gate_(fc2_(fc1_(x.mean({2, 3}, /*keepdim=*/true)).relu_())); }

 private:
  Gate gate_;
  Conv2d fc1_{nullptr}, fc2_{nullptr};
};
TORCH_MODULE(SqueezeExcite);

}  // namespace preceptor::models
