#pragma once
#include <torch/nn.h>

#include <array>
#include <memory>
#include <optional>

/// Convolution and linear layers of the zoo. They compute as LibTorch's do until compression changes how: by factors of
/// the weight, by a low-rank addition to it, or with values rounded to eight bits while they train.
namespace preceptor::models {

/// Ranks of a factorised layer.
struct Ranks {
  std::int64_t out = 0;  ///< of the last factor, from 1 on; of a linear layer or 1×1 convolution the only rank
  std::int64_t in = 0;   ///< of the first factor of a k×k convolution (Tucker-2), from 1 on; 0 for the others
};

/// How a layer rounds to eight bits while it trains (Jacob 2017, arXiv:1712.05877): weights to −127 … 127 by the largest
/// of each output channel, the input to 256 steps.
enum class Rounding {
  kObserved,  ///< between bounds that follow what training shows: a moving average of the input's extremes
  kLearned,   ///< with a step that is a parameter (LSQ, Esser 2019, arXiv:1902.08153); the zero point stays as observed
};

/// What a layer of the zoo can become. Each call changes the parameters that the layer registers, so it comes before a
/// FlatModel takes them over. The layer must not be shared between threads. Values are up to the caller.
class Adaptable {
 public:
  virtual ~Adaptable() = default;
  /// Puts "down" and "up" in this layer's place, of a k×k convolution with "core" between them: adaptable layers
  /// themselves, the bias in the last. Not for grouped convolutions. Throws c10::Error for ranks that do not fit.
  virtual void factorise(const Ranks& ranks) = 0;
  /// Adds up(down(x)) to the output (LoRA, Hu 2021, arXiv:2106.09685): layers "lora_down" and "lora_up". The weight and
  /// bias beside it, and "lora_down", are frozen: so the mean of sites' additions is the addition of the mean
  /// (FFA-LoRA, Sun 2024, arXiv:2403.12313). Not for grouped convolutions.
  virtual void add_lora(std::int64_t rank) = 0;
  /// Rounds from now on; registers the buffer "input_range" [2] (0, 0: nothing seen yet) and, if learned, the parameter
  /// "input_step" [1].
  virtual void round(Rounding how) = 0;
  virtual bool rounds() const = 0;
};

namespace internal {

/// The common part over torch::nn::Conv2dImpl or LinearImpl. Self adds compute() and the two makers.
template <class Self, class Base>
class AdaptableLayer : public Base, public Adaptable {
 public:
  using Base::Base;
  void factorise(const Ranks& ranks) override;
  void add_lora(std::int64_t rank) override;
  void round(Rounding how) override;
  bool rounds() const override { return rounding_.has_value(); }

 protected:
  torch::Tensor run(const torch::Tensor& x);

 private:
  torch::Tensor rounded_input(const torch::Tensor& x);
  torch::Tensor rounded_weight() const;

  std::shared_ptr<Self> down_, core_, up_, lora_down_, lora_up_;
  std::optional<Rounding> rounding_;
  torch::Tensor range_, step_;
};

}  // namespace internal

class Conv2dImpl : public internal::AdaptableLayer<Conv2dImpl, torch::nn::Conv2dImpl> {
 public:
  using AdaptableLayer::AdaptableLayer;
  torch::Tensor forward(const torch::Tensor& x) { return run(x); }
  torch::Tensor compute(const torch::Tensor& x, const torch::Tensor& kernel) { return _conv_forward(x, kernel); }
  /// First factor, core (null for 1×1) and last; the two of LoRA.
  std::array<std::shared_ptr<Conv2dImpl>, 3> factors(const Ranks& ranks) const;
  std::array<std::shared_ptr<Conv2dImpl>, 2> lora(std::int64_t rank) const;
};
TORCH_MODULE(Conv2d);

class LinearImpl : public internal::AdaptableLayer<LinearImpl, torch::nn::LinearImpl> {
 public:
  using AdaptableLayer::AdaptableLayer;
  torch::Tensor forward(const torch::Tensor& x) { return run(x); }
  torch::Tensor compute(const torch::Tensor& x, const torch::Tensor& matrix) { return torch::linear(x, matrix, bias); }
  std::array<std::shared_ptr<LinearImpl>, 3> factors(const Ranks& ranks) const;
  std::array<std::shared_ptr<LinearImpl>, 2> lora(std::int64_t rank) const;
};
TORCH_MODULE(Linear);

}  // namespace preceptor::models
