#pragma once
#include <torch/nn.h>

#include <array>
#include <functional>
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

/// How a layer rounds to eight bits (Jacob 2017, arXiv:1712.05877), while it trains and after. Whoever computes with the
/// integers follows this, in float32, rounding to the nearest and halves to even:
/// - weight, of each output channel: step = max |w| / 127, at least 1e-12; code = round(w / step), −127 … 127.
///   A later factor for each channel (a batch norm's) scales the step and leaves the codes, so norms need no folding first.
/// - input, between low ≤ 0 ≤ high of "input_range": step = (high − low) / 255; zero = round(−low · 255 / (high − low));
///   code = clamp(round(x · (1 / step)) + zero, 0, 255), which stands for (code − zero) · step.
/// - bias and output stay in float. Until a range was seen (0, 0) the layer computes as one that does not round.
enum class Rounding {
  kObserved,  ///< a range that follows what training shows: a moving average of the input's extremes
  kLearned,   ///< the input's step is |"input_step"|, a parameter (LSQ, Esser 2019, arXiv:1902.08153); zero as observed
};

/// Step of each output channel of a weight [out, …]: [out, 1, …]. Without gradient.
torch::Tensor rounding_step(const torch::Tensor& weight);
/// The weight on its grid; the gradient is the identity's. A second rounding changes nothing, to the bit.
torch::Tensor rounded(const torch::Tensor& weight);

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
  /// "input_step" [1] (0: to begin with the observed one). Training mode observes; evaluation mode leaves the range.
  virtual void round(Rounding how) = 0;
  virtual bool rounds() const = 0;
  virtual bool factorised() const = 0;

  /// Called after each pass with the input and with the output, which it may change. Empty: nobody watches.
  using Watch = std::function<void(const torch::Tensor& input, torch::Tensor& output)>;
  virtual void watch(Watch watch) = 0;
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
  bool factorised() const override { return bool(up_); }
  void watch(Watch watch) override { watch_ = std::move(watch); }

 protected:
  torch::Tensor run(const torch::Tensor& x);

 private:
  struct Range {
    float low, high;
  };
  void observe(const torch::Tensor& x);
  std::optional<Range> range() const;  ///< none: nothing but zero was seen
  torch::Tensor rounded_input(const torch::Tensor& x, const Range& range) const;

  std::shared_ptr<Self> down_, core_, up_, lora_down_, lora_up_;
  std::optional<Rounding> rounding_;
  torch::Tensor range_, step_;
  Watch watch_;
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
