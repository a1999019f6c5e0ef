#pragma once
#include "models/layers.h"

namespace preceptor::models {

/// What a linear branch does, as one convolution: weight [out, in/groups, k, k] and bias [out]. In float64, so that
/// folding and adding branches costs no more than the one rounding at the end.
struct Kernel {
  torch::Tensor weight, bias;
};

inline Kernel kernel_of(const Conv2d& conv) {
  const auto weight = conv->weight.to(torch::kFloat64);
  return {weight, conv->bias.defined() ? conv->bias.to(torch::kFloat64) : weight.new_zeros({weight.size(0)})};
}

/// The kernel, shaped like that of `conv`, that hands its input on: one at the centre, for each channel's own.
inline Kernel identity_kernel(const Conv2d& conv) {
  const auto weight = torch::zeros_like(conv->weight, torch::kFloat64);
  const auto out = weight.size(0), in = weight.size(1), centre = weight.size(2) / 2;
  const auto own = torch::arange(out, weight.options().dtype(torch::kInt64)).remainder(in).unsqueeze(1);
  weight.select(3, centre).select(2, centre).scatter_(1, own, 1.0);
  return {weight, weight.new_zeros({out})};
}

/// Batch norm after the kernel, as evaluation mode has it.
inline Kernel fold(const Kernel& kernel, const BatchNorm2d& norm) {
  const auto scale = norm->weight.to(torch::kFloat64) / (norm->running_var.to(torch::kFloat64) + norm->options.eps()).sqrt();
  return {kernel.weight * scale.view({-1, 1, 1, 1}), (kernel.bias - norm->running_mean) * scale + norm->bias};
}

/// Branches of the same input, added; the smaller kernel is padded around its centre.
inline Kernel operator+(const Kernel& a, const Kernel& b) {
  if (a.weight.size(2) < b.weight.size(2)) return b + a;
  const auto margin = (a.weight.size(2) - b.weight.size(2)) / 2;
  return {a.weight + torch::constant_pad_nd(b.weight, {margin, margin, margin, margin}), a.bias + b.bias};
}

/// `like` (its stride, padding and groups) with this kernel.
inline Conv2d convolution(const Kernel& kernel, const Conv2d& like) {
  const auto& o = like->options;
  Conv2d conv(torch::nn::Conv2dOptions(o.in_channels(), o.out_channels(), o.kernel_size())
                             .stride(o.stride()).padding(o.padding()).groups(o.groups()));
  conv->to(like->weight.device());
  conv->weight.copy_(kernel.weight);
  conv->bias.copy_(kernel.bias);
  conv->train(like->is_training());
  return conv;
}

/// A part of a network that becomes one convolution (or one linear layer) for inference.
class Fusible : public torch::nn::Module {
 public:
  virtual void fuse() = 0;  ///< without gradients; a second call changes nothing
  virtual bool fused() const = 0;
};

/// Model::fuse of a network made of Fusible parts. A part inside another may be fused after it left the network.
inline void fuse_parts(torch::nn::Module& network) {
  torch::NoGradGuard no_grad;
  for (const auto& module : network.modules(/*include_self=*/false))
    if (auto* part = dynamic_cast<Fusible*>(module.get())) part->fuse();
}

/// Convolution, then batch norm. Weights files differ in the convolution's name.
class ConvNormImpl : public Fusible {
 public:
  ConvNormImpl(const std::string& name, const Conv2d& layer) : name_(name), conv_(register_module(name, layer)) {
    norm_ = register_module("bn", norm(int(conv_->options.out_channels())));
  }
  torch::Tensor forward(const torch::Tensor& x) { return norm_ ? norm_(conv_(x)) : conv_(x); }
  const Conv2d& conv_layer() const { return conv_; }
  const BatchNorm2d& norm_layer() const { return norm_; }  ///< empty after fuse()
  Kernel kernel() const { return norm_ ? fold(kernel_of(conv_), norm_) : kernel_of(conv_); }
  void fuse() override {
    if (!norm_) return;
    conv_ = replace_module(name_, convolution(kernel(), conv_));
    unregister_module("bn");
    norm_ = nullptr;
  }
  bool fused() const override { return !norm_; }

 private:
  std::string name_;
  Conv2d conv_;
  BatchNorm2d norm_{nullptr};
};
TORCH_MODULE(ConvNorm);

}  // namespace preceptor::models
