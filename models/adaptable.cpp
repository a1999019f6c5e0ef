#include "models/adaptable.h"

#include <torch/torch.h>

namespace preceptor::models {
namespace {

constexpr double kObserverMomentum = 0.1;  ///< share of a batch's extremes in the moving average
constexpr double kSteps = 255, kLargest = 127;

/// Rounds half to even, with the gradient of the identity.
torch::Tensor round_through(const torch::Tensor& x) { return x + (x.round() - x).detach(); }

}  // namespace

namespace internal {

template <class Self, class Base>
torch::Tensor AdaptableLayer<Self, Base>::run(const torch::Tensor& x) {
  if (up_) return up_->forward(core_ ? core_->forward(down_->forward(x)) : down_->forward(x));
  auto& self = static_cast<Self&>(*this);
  const auto y = rounding_ ? self.compute(rounded_input(x), rounded_weight()) : self.compute(x, this->weight);
  return lora_up_ ? y + lora_up_->forward(lora_down_->forward(x)) : y;
}

template <class Self, class Base>
void AdaptableLayer<Self, Base>::factorise(const Ranks& ranks) {
  TORCH_CHECK(!up_ && !lora_up_ && !rounding_, "a layer is factorised once, before anything else");
  std::tie(down_, core_, up_) = std::tuple_cat(static_cast<Self&>(*this).factors(ranks));
  for (const auto& name : this->parameters_.keys()) this->parameters_.erase(name);
  this->weight = this->bias = torch::Tensor();
  this->register_module("down", down_);
  if (core_) this->register_module("core", core_);
  this->register_module("up", up_);
}

template <class Self, class Base>
void AdaptableLayer<Self, Base>::add_lora(std::int64_t rank) {
  TORCH_CHECK(!up_ && !lora_up_, "LoRA: one a layer, and not on a factorised one");
  std::tie(lora_down_, lora_up_) = std::tuple_cat(static_cast<Self&>(*this).lora(rank));
  for (auto& parameter : this->parameters(/*recurse=*/false)) parameter.set_requires_grad(false);
  lora_down_->weight.set_requires_grad(false);
  this->register_module("lora_down", lora_down_);
  this->register_module("lora_up", lora_up_);
}

template <class Self, class Base>
void AdaptableLayer<Self, Base>::round(Rounding how) {
  TORCH_CHECK(!up_ && !rounding_, "a layer rounds once; of a factorised one its factors do");
  rounding_ = how;
  range_ = this->register_buffer("input_range", torch::zeros({2}));
  if (how == Rounding::kLearned) step_ = this->register_parameter("input_step", torch::zeros({1}));
}

template <class Self, class Base>
torch::Tensor AdaptableLayer<Self, Base>::rounded_input(const torch::Tensor& x) {
  if (this->is_training()) {
    torch::NoGradGuard no_grad;
    const auto seen = torch::stack({x.min().clamp_max(0), x.max().clamp_min(0)});  // zero stays exact
    const bool first = (range_ == 0).all().template item<bool>();
    range_.lerp_(seen, first ? 1.0 : kObserverMomentum);
    if (step_.defined() && first) step_.copy_((range_[1] - range_[0]) / kSteps);
  }
  const auto low = range_[0], width = (range_[1] - low).clamp_min(1e-8);
  if (!this->is_training() && !torch::GradMode::is_enabled()) {  // by the operators that a traced graph then names
    const double step = (step_.defined() ? step_[0].abs() : width / kSteps).clamp_min(1e-8).template item<double>();
    const double zero = std::nearbyint((-low * kSteps / width).template item<double>());
    return torch::fake_quantize_per_tensor_affine(x, step, std::int64_t(zero), 0, std::int64_t(kSteps));
  }
  if (rounding_ == Rounding::kObserved) {
    const auto step = width / kSteps;
    const auto zero = (-low / step).round();
    return (round_through((x / step + zero).clamp(0, kSteps)) - zero) * step;
  }
  // LSQ scales the step's gradient by 1/√(values · steps), so that it learns at the weights' pace.
  const double scale = 1 / std::sqrt(double(x.numel()) / double(x.size(0)) * kSteps);
  const auto positive = step_.abs().clamp_min(1e-8);
  const auto step = positive * scale + (positive * (1 - scale)).detach();
  const auto zero = (-low * kSteps / width).round().detach();
  return (round_through((x / step + zero).clamp(0, kSteps)) - zero) * step;
}

template <class Self, class Base>
torch::Tensor AdaptableLayer<Self, Base>::rounded_weight() const {
  const auto& w = this->weight;
  std::vector<std::int64_t> inner(std::size_t(w.dim()) - 1);
  std::iota(inner.begin(), inner.end(), 1);
  const auto step = (w.detach().abs().amax(inner, /*keepdim=*/true) / kLargest).clamp_min(1e-12);
  return round_through(w / step) * step;
}

template class AdaptableLayer<Conv2dImpl, torch::nn::Conv2dImpl>;
template class AdaptableLayer<LinearImpl, torch::nn::LinearImpl>;

}  // namespace internal

std::array<std::shared_ptr<Conv2dImpl>, 3> Conv2dImpl::factors(const Ranks& ranks) const {
  const auto& o = options;
  TORCH_CHECK(o.groups() == 1, "grouped convolutions are not factorised");
  const bool point = o.kernel_size()->at(0) == 1 && o.kernel_size()->at(1) == 1;
  TORCH_CHECK(ranks.out > 0 && ranks.out <= o.out_channels() && ranks.in >= 0 && ranks.in <= o.in_channels() && (ranks.in == 0) == point,
              "ranks ", ranks.out, " and ", ranks.in, " do not fit a convolution of ", weight.sizes());
  const auto one = [](std::int64_t in, std::int64_t out, bool biased) {
    return std::make_shared<Conv2dImpl>(torch::nn::Conv2dOptions(in, out, 1).bias(biased));
  };
  const auto up = one(ranks.out, o.out_channels(), o.bias());
  if (point) {  // a stride is the first factor's: fewer pixels for the second
    auto down = std::make_shared<Conv2dImpl>(torch::nn::Conv2dOptions(o.in_channels(), ranks.out, 1).stride(o.stride()).bias(false));
    return {down, nullptr, up};
  }
  auto core = torch::nn::Conv2dOptions(ranks.in, ranks.out, o.kernel_size()).stride(o.stride()).padding(o.padding()).dilation(o.dilation()).bias(false);
  return {one(o.in_channels(), ranks.in, false), std::make_shared<Conv2dImpl>(core), up};
}

std::array<std::shared_ptr<Conv2dImpl>, 2> Conv2dImpl::lora(std::int64_t rank) const {
  const auto& o = options;
  TORCH_CHECK(o.groups() == 1 && rank > 0 && rank <= o.out_channels(), "LoRA of rank ", rank, " does not fit a convolution of ", weight.sizes(),
              " in ", o.groups(), " groups");
  auto down = torch::nn::Conv2dOptions(o.in_channels(), rank, o.kernel_size()).stride(o.stride()).padding(o.padding()).dilation(o.dilation()).bias(false);
  return {std::make_shared<Conv2dImpl>(down), std::make_shared<Conv2dImpl>(torch::nn::Conv2dOptions(rank, o.out_channels(), 1).bias(false))};
}

std::array<std::shared_ptr<LinearImpl>, 3> LinearImpl::factors(const Ranks& ranks) const {
  const auto in = options.in_features(), out = options.out_features();
  TORCH_CHECK(ranks.in == 0 && ranks.out > 0 && ranks.out <= std::min(in, out), "rank ", ranks.out, " does not fit a linear layer of ", weight.sizes());
  return {std::make_shared<LinearImpl>(torch::nn::LinearOptions(in, ranks.out).bias(false)), nullptr,
          std::make_shared<LinearImpl>(torch::nn::LinearOptions(ranks.out, out).bias(options.bias()))};
}

std::array<std::shared_ptr<LinearImpl>, 2> LinearImpl::lora(std::int64_t rank) const {
  const auto in = options.in_features(), out = options.out_features();
  TORCH_CHECK(rank > 0 && rank <= std::min(in, out), "LoRA of rank ", rank, " does not fit a linear layer of ", weight.sizes());
  return {std::make_shared<LinearImpl>(torch::nn::LinearOptions(in, rank).bias(false)),
          std::make_shared<LinearImpl>(torch::nn::LinearOptions(rank, out).bias(false))};
}

}  // namespace preceptor::models
