#include "compression/model/sparse.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "compression/model/importance.h"
#include "tests/training/made.h"

namespace preceptor::compression {
namespace {

using training::test::made_model;
using training::test::noise;

TEST(GroupSparsity, PullsEachUnitByItsImportance) {
  auto model = made_model("test-tiny", 2, 1, 1, 8);
  const auto group = find_channels(model).value().groups.at(0);
  torch::NoGradGuard no_grad;
  auto parameters = model.network().named_parameters();
  for (std::int64_t c = 0; c < 8; ++c)
    for (auto part : {parameters["in.weight"][c], parameters["out.weight"].select(1, c), parameters["norm.weight"].narrow(0, c, 1)})
      part.fill_(std::sqrt(double(1 + c)));  // so that I_k rises evenly
  model.gradients().zero_();
  GroupSparsity sparsity({group}, {.strength = 1e-4, .alpha = 4});
  sparsity.before_step(model, 0);
  for (std::int64_t c = 0; c < 8; ++c) {
    const double wanted = 1e-4 * std::pow(2.0, 4 * (7 - double(c)) / 7) * std::sqrt(double(1 + c));
    EXPECT_NEAR(parameters["in.weight"].grad()[c][5].item<double>(), wanted, 1e-8);
    EXPECT_NEAR(parameters["out.weight"].grad()[1][c].item<double>(), wanted, 1e-8);
    EXPECT_NEAR(parameters["norm.weight"].grad()[c].item<double>(), wanted, 1e-8);
  }
  EXPECT_EQ(parameters["in.bias"].grad().abs().sum().item<double>(), 0);
}

TEST(GroupSparsity, WidensTheGapBetweenUnitsWhileTraining) {
  const auto images = noise(32, 1, 8);
  const auto ratio = [&](double strength) {
    auto model = made_model("test-tiny", 2, 1, 1, 8);
    {
      torch::NoGradGuard no_grad;
      torch::manual_seed(1);
      for (auto& parameter : model.network().parameters()) parameter.normal_();
    }
    GroupSparsity sparsity(find_channels(model).value().groups, {.strength = strength, .alpha = 4});
    training::TrainingOptions options;
    options.epochs = 20;
    options.weight_decay = 0;
    auto objective = training::make_cross_entropy(options, images);
    EXPECT_TRUE(training::train(model, images, options, *objective, 1, {}, {}, &sparsity).has_value());
    const auto channels = find_channels(model).value();
    const auto scores = (**criteria().find("group_l2"))(model, {}).value()->scores(channels.groups[0]);
    return (scores.min() / scores.max()).item<double>();
  };
  EXPECT_LT(ratio(2e-2), 0.8 * ratio(0));
}

TEST(WeightMask, FollowsTheCubicSchedule) {
  auto model = made_model("test-tiny", 2, 1, 1, 16);
  torch::manual_seed(1);
  {
    torch::NoGradGuard no_grad;
    model.values().normal_();
  }
  const auto mask = WeightMask::create({.pattern = "unstructured", .sparsity = 0.8, .ramp = 0.5}).value();
  mask.apply(model, 0);
  EXPECT_EQ(zeros(model), 0);
  mask.apply(model, 0.25);
  EXPECT_NEAR(zeros(model), 0.8 * (1 - 0.125), 1e-2);
  mask.apply(model, 0.5);
  EXPECT_NEAR(zeros(model), 0.8, 1e-2);
  auto weight = model.network().named_parameters()["in.weight"];
  const auto kept = weight.abs().masked_select(weight.ne(0));
  EXPECT_GT(kept.min().item<double>(), 1.1) << "80 % of a normal distribution lie within 1.28";
  mask.apply(model, 1);
  EXPECT_NEAR(zeros(model), 0.8, 1e-2);
}

TEST(WeightMask, KeepsTheLargestNOfEachM) {
  auto model = made_model("test-tiny", 2, 1, 1, 8);
  torch::manual_seed(1);
  {
    torch::NoGradGuard no_grad;
    model.values().normal_();
  }
  const auto before = model.network().named_parameters()["in.weight"].detach().clone();
  WeightMask::create({.pattern = "2:4", .ramp = 0}).value().apply(model, 0);
  const auto weight = model.network().named_parameters()["in.weight"];
  const auto blocks = weight.view({-1, 4}), old = before.view({-1, 4}).abs();
  EXPECT_TRUE(blocks.ne(0).sum(1).eq(2).all().item<bool>());
  const auto least_kept = torch::where(blocks.ne(0), old, 1e9).amin(1), most_gone = torch::where(blocks.eq(0), old, -1.0).amax(1);
  EXPECT_TRUE(least_kept.ge(most_gone).all().item<bool>());
  EXPECT_NEAR(zeros(model), 0.5, 1e-6);
}

TEST(WeightMask, StaysThroughTraining) {
  const auto images = noise(32, 1, 8);
  for (const auto* pattern : {"unstructured", "1:4"}) {
    auto model = made_model("test-tiny", 2, 1, 1, 8);
    auto mask = WeightMask::create({.pattern = pattern, .sparsity = 0.75, .ramp = 0.5}).value();
    training::TrainingOptions options;
    options.epochs = 6;
    auto objective = training::make_cross_entropy(options, images);
    ASSERT_TRUE(training::train(model, images, options, *objective, 1, {}, {}, &mask).has_value());
    EXPECT_NEAR(zeros(model), 0.75, 1e-2) << pattern;
    EXPECT_TRUE(model.values().isfinite().all().item<bool>());
  }
}

TEST(WeightMask, RefusesOtherPatterns) {
  for (const auto* pattern : {"", "dense", "4:2", "2:2", "0:4", "2:", ":4", "2:4x", "2:128"}) {
    const auto mask = WeightMask::create({.pattern = pattern});
    ASSERT_FALSE(mask.has_value()) << pattern;
    EXPECT_EQ(mask.error().code, Code::kInvalid);
  }
}

}  // namespace
}  // namespace preceptor::compression
