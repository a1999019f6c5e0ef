#include "training/optimizer.h"

#include <torch/torch.h>

#include <cmath>
#include <numbers>

namespace preceptor::training {
namespace {

/// Weight decay a float: the rate on weights, 0 elsewhere.
at::Tensor decay_mask(double rate, const ParameterSpace& space, const at::Tensor& like) {
  auto mask = torch::zeros({like.numel()});
  for (const auto& piece : space.pieces())
    if (piece.role == Role::kWeight) mask.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).fill_(rate);
  return mask.to(like.device());
}

class Sgd : public Optimizer {
 public:
  Sgd(const TrainingOptions& o, const ParameterSpace& space, const at::Tensor& like)
      : momentum_(o.momentum), decay_(decay_mask(o.weight_decay, space, like)), velocity_(torch::zeros_like(like)) {}
  void step(at::Tensor& values, const at::Tensor& gradients, double rate) override {
    const auto gradient = torch::addcmul(gradients, decay_, values);
    velocity_.mul_(momentum_).add_(gradient);
    values.add_(gradient, -rate).add_(velocity_, -rate * momentum_);
  }

 private:
  double momentum_;
  at::Tensor decay_, velocity_;
};

class AdamW : public Optimizer {
 public:
  AdamW(const TrainingOptions& o, const ParameterSpace& space, const at::Tensor& like)
      : decay_(decay_mask(o.weight_decay, space, like)), mean_(torch::zeros_like(like)), square_(torch::zeros_like(like)) {}
  void step(at::Tensor& values, const at::Tensor& gradients, double rate) override {
    ++steps_;
    mean_.mul_(kBeta1).add_(gradients, 1 - kBeta1);
    square_.mul_(kBeta2).addcmul_(gradients, gradients, 1 - kBeta2);
    const double unbias1 = 1 - std::pow(kBeta1, steps_), unbias2 = 1 - std::pow(kBeta2, steps_);
    values.addcmul_(values, decay_, -rate);
    values.addcdiv_(mean_, (square_ / unbias2).sqrt_().add_(kEpsilon), -rate / unbias1);
  }

 private:
  static constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;
  at::Tensor decay_, mean_, square_;
  int steps_ = 0;
};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const TrainingOptions& options, const ParameterSpace& space, const at::Tensor& like) {
  if (options.optimizer == "adamw") return std::make_unique<AdamW>(options, space, like);
  return std::make_unique<Sgd>(options, space, like);
}

void clip(at::Tensor& gradients, double norm) {
  if (norm <= 0) return;
  const double length = gradients.norm().item<double>();
  if (length > norm) gradients.mul_(norm / length);
}

double schedule_factor(const TrainingOptions& options, double progress) {
  if (progress < options.warmup) return progress / options.warmup;
  if (options.schedule == "cosine") return 0.01 + 0.99 * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  if (options.schedule == "step") return progress < 0.5 ? 1 : progress < 0.75 ? 0.1 : 0.01;
  return 1;
}

}  // namespace preceptor::training
