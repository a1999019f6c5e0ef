#include "models/adaptable.h"

#include <ATen/TracerMode.h>
#include <torch/torch.h>

#include <cmath>
#include <numeric>

namespace preceptor::models {
namespace {

constexpr double kObserverMomentum = 0.1;  ///< share of a batch's extremes in the moving average
constexpr float kSteps = 255, kLargest = 127;
constexpr double kSmallestStep = 1e-12;

/// Rounds half to even, with the gradient of the identity.
torch::Tensor round_through(const torch::Tensor& x) { return x + (x.round() - x).detach(); }

/// A number that whoever traces the network sees as a constant.
float constant(const torch::Tensor& scalar) {
  const at::tracer::impl::NoTracerDispatchMode no_trace;
  return scalar.item<float>();
}

}  // namespace

torch::Tensor rounding_step(const torch::Tensor& weight) {
  std::vector<std::int64_t> inner(std::size_t(weight.dim()) - 1);
  std::iota(inner.begin(), inner.end(), 1);
  return (weight.detach().abs().amax(inner, /*keepdim=*/true) / kLargest).clamp_min(kSmallestStep);
}

torch::Tensor rounded(const torch::Tensor& weight) {
  const auto step = rounding_step(weight);
  return round_through(weight / step) * step;
}

namespace internal {

template <class Self, class Base>
torch::Tensor AdaptableLayer<Self, Base>::run(const torch::Tensor& x) {
  if (up_) return up_->forward(core_ ? core_->forward(down_->forward(x)) : down_->forward(x));
  auto& self = static_cast<Self&>(*this);
  if (rounding_ && this->is_training()) observe(x);
  const auto range = rounding_ ? this->range() : std::nullopt;
  auto y = range ? self.compute(rounded_input(x, *range), rounded(this->weight)) : self.compute(x, this->weight);
  if (lora_up_) y = y + lora_up_->forward(lora_down_->forward(x));
  if (watch_) watch_(x, y);
  return y;
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
void AdaptableLayer<Self, Base>::observe(const torch::Tensor& x) {
  torch::NoGradGuard no_grad;
  const auto seen = torch::stack({x.min().clamp_max(0), x.max().clamp_min(0)});  // zero stays exact
  range_.lerp_(seen, range() ? kObserverMomentum : 1.0);
  if (step_.defined() && step_.template item<float>() == 0) step_.copy_((range_[1] - range_[0]) / kSteps);
}

template <class Self, class Base>
auto AdaptableLayer<Self, Base>::range() const -> std::optional<Range> {
  const at::tracer::impl::NoTracerDispatchMode no_trace;
  const auto values = range_.to(torch::kCPU);
  const Range seen{values.template data_ptr<float>()[0], values.template data_ptr<float>()[1]};
  return seen.high > seen.low ? std::optional(seen) : std::nullopt;
}

template <class Self, class Base>
torch::Tensor AdaptableLayer<Self, Base>::rounded_input(const torch::Tensor& x, const Range& range) const {
  const float width = range.high - range.low;
  const auto zero = std::int64_t(std::nearbyint(-range.low * kSteps / width));
  if (!step_.defined()) return torch::fake_quantize_per_tensor_affine(x, width / kSteps, zero, 0, std::int64_t(kSteps));
  const auto step = step_.abs().clamp_min(kSmallestStep);
  if (!torch::GradMode::is_enabled()) return torch::fake_quantize_per_tensor_affine(x, constant(step), zero, 0, std::int64_t(kSteps));
  // LSQ scales the step's gradient by 1/√(values · steps), so that it learns at the weights' pace.
  const double scale = 1 / std::sqrt(double(x.numel()) / double(x.size(0)) * kSteps);
  return torch::_fake_quantize_learnable_per_tensor_affine(x, step, torch::full({1}, double(zero), step.options()), 0,
                                                           std::int64_t(kSteps), scale);
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
