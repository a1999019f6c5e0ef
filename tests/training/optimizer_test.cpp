#include "training/optimizer.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace preceptor::training {
namespace {

/// Four pieces: only the first decays; the statistics have no gradient.
ParameterSpace made_space() {
  ParameterSpace space;
  space.add("weight", {5, 4}, Role::kWeight);
  space.add("bias", {5}, Role::kBias);
  space.add("norm", {4}, Role::kNormScale);
  space.add("mean", {3}, Role::kNormMean);
  return space;
}
constexpr std::int64_t kDecayed = 20, kTrained = 29, kAll = 32;

/// The gradient of a small quadratic with an ill-conditioned matrix.
struct Problem {
  at::Tensor matrix, target;
  Problem() {
    torch::manual_seed(1);
    const auto half = torch::randn({kTrained, kTrained});
    matrix = half.mm(half.t()) / kTrained;
    target = torch::randn({kTrained});
  }
  at::Tensor gradient(const at::Tensor& at) const { return matrix.mv(at) - target; }
};

/// Our optimiser and torch's for 20 steps, with a rate that changes from step to step. Returns the
/// largest difference between their values.
template <class Reference>
double distance_from(Reference& reference, at::Tensor& decayed, at::Tensor& others,
                     const TrainingOptions& options) {
  const Problem problem;
  auto ours = torch::cat({decayed.detach(), others.detach(), torch::full({3}, 7.0)});
  auto optimizer = make_optimizer(options, made_space(), ours);
  double largest = 0;
  for (int step = 0; step < 20; ++step) {
    const double rate = options.learning_rate * (1 + 0.1 * (step % 3));
    const auto gradient = problem.gradient(torch::cat({decayed.detach(), others.detach()}));
    decayed.mutable_grad() = gradient.narrow(0, 0, kDecayed).clone();
    others.mutable_grad() = gradient.narrow(0, kDecayed, kTrained - kDecayed).clone();
    for (auto& group : reference.param_groups()) group.options().set_lr(rate);
    reference.step();
    const auto mine =
        torch::cat({problem.gradient(ours.narrow(0, 0, kTrained)), torch::zeros({3})});
    optimizer->step(ours, mine, rate);
    const auto gap = ours.narrow(0, 0, kTrained) - torch::cat({decayed.detach(), others.detach()});
    largest = std::max(largest, gap.abs().max().template item<double>());
  }
  EXPECT_TRUE(torch::equal(ours.narrow(0, kTrained, 3), torch::full({3}, 7.0)))
      << "statistics stay as they are";
  EXPECT_EQ(ours.numel(), kAll);
  return largest;
}

TrainingOptions made(const std::string& optimizer, double rate, double momentum, double decay) {
  TrainingOptions options;
  options.optimizer = optimizer;
  options.learning_rate = rate;
  options.momentum = momentum;
  options.weight_decay = decay;
  return options;
}

TrainingOptions scheduled(const std::string& schedule, double warmup = 0) {
  TrainingOptions options;
  options.schedule = schedule;
  options.warmup = warmup;
  return options;
}

struct Start {
  at::Tensor decayed, others;
  Start() {
    torch::manual_seed(2);
    decayed = torch::randn({kDecayed}).requires_grad_();
    others = torch::randn({kTrained - kDecayed}).requires_grad_();
  }
  template <class Options>
  std::vector<torch::optim::OptimizerParamGroup> groups(const Options& with_decay,
                                                        const Options& without) const {
    return {{{decayed}, std::make_unique<Options>(with_decay)},
            {{others}, std::make_unique<Options>(without)}};
  }
};

TEST(Sgd, StepsAsTorchsNesterovMomentumDoes) {
  for (const double momentum : {0.9, 0.5}) {
    Start start;
    const auto base = torch::optim::SGDOptions(0.05).momentum(momentum).nesterov(true);
    auto with_decay = base;
    torch::optim::SGD reference(start.groups(with_decay.weight_decay(0.01), base), base);
    const auto options = made("sgd", 0.05, momentum, 0.01);
    EXPECT_LT(distance_from(reference, start.decayed, start.others, options), 1e-6);
  }
}

TEST(Sgd, WithoutMomentumIsPlainDescent) {
  Start start;
  const auto base = torch::optim::SGDOptions(0.05);
  torch::optim::SGD reference(start.groups(base, base), base);
  const auto options = made("sgd", 0.05, 0, 0);
  EXPECT_LT(distance_from(reference, start.decayed, start.others, options), 1e-6);
}

TEST(AdamW, StepsAsTorchsDoes) {
  Start start;
  const auto base = torch::optim::AdamWOptions(0.01).weight_decay(0);
  auto with_decay = base;
  torch::optim::AdamW reference(start.groups(with_decay.weight_decay(0.1), base), base);
  const auto options = made("adamw", 0.01, 0, 0.1);
  EXPECT_LT(distance_from(reference, start.decayed, start.others, options), 1e-6);
}

TEST(Optimizer, DecayMovesWeightsAndNothingElse) {
  for (const std::string name : {"sgd", "adamw"}) {
    auto values = torch::ones({kAll});
    const auto options = made(name, 0.5, 0.9, 0.1);
    make_optimizer(options, made_space(), values)->step(values, torch::zeros({kAll}), 0.5);
    EXPECT_LT(values.narrow(0, 0, kDecayed).max().item<double>(), 0.96) << name;
    EXPECT_TRUE(
        torch::equal(values.narrow(0, kDecayed, kAll - kDecayed), torch::ones({kAll - kDecayed})))
        << name;
  }
}

TEST(Schedule, CosineFallsFromOneToAHundredth) {
  const auto options = scheduled("cosine");
  EXPECT_DOUBLE_EQ(schedule_factor(options, 0), 1);
  EXPECT_DOUBLE_EQ(schedule_factor(options, 0.5), 0.505);
  EXPECT_DOUBLE_EQ(schedule_factor(options, 1), 0.01);
  for (double p = 0.01; p <= 1; p += 0.01)
    EXPECT_LT(schedule_factor(options, p), schedule_factor(options, p - 0.01));
}

TEST(Schedule, StepDividesByTenAtHalfAndAtThreeQuarters) {
  const auto options = scheduled("step");
  EXPECT_EQ(schedule_factor(options, 0.499), 1);
  EXPECT_EQ(schedule_factor(options, 0.5), 0.1);
  EXPECT_EQ(schedule_factor(options, 0.749), 0.1);
  EXPECT_EQ(schedule_factor(options, 0.75), 0.01);
}

TEST(Schedule, ConstantStaysAndWarmupRisesLinearlyBeforeAnyOfThem) {
  EXPECT_EQ(schedule_factor(scheduled("constant"), 0.9), 1);
  for (const std::string name : {"constant", "step", "cosine"}) {
    const auto options = scheduled(name, 0.2);
    EXPECT_DOUBLE_EQ(schedule_factor(options, 0.05), 0.25);
    EXPECT_DOUBLE_EQ(schedule_factor(options, 0.1), 0.5);
    EXPECT_EQ(schedule_factor(options, 0.2), schedule_factor(scheduled(name), 0.2));
  }
}

}  // namespace
}  // namespace preceptor::training
