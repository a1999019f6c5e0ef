#include "compression/model/low_rank.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "compression/model/restructure.h"
#include "tests/compression/model/made_networks.h"
#include "tests/support/temp_dir.h"

namespace preceptor::compression {
namespace {

using test::difference;
using test::lived_in;
using testing::HasSubstr;

/// What the three factors of a k×k kernel, or the two of a matrix, give together.
at::Tensor product(const Factors& f) {
  const auto up = f.up.flatten(1), down = f.down.flatten(1);
  return f.core.defined() ? torch::einsum("or,rikl,ij->ojkl", {up, f.core, down}) : up.mm(down).view({f.up.size(0), f.down.size(1)});
}

TEST(LowRank, FactorsOfFullRankGiveTheWeightBack) {
  torch::manual_seed(1);
  const auto matrix = torch::randn({12, 20}), kernel = torch::randn({10, 6, 3, 3});
  const auto two = decompose(matrix, {12, 0});
  EXPECT_TRUE(torch::allclose(product(two), matrix, 1e-4, 1e-5));
  EXPECT_NEAR(two.energy, 1, 1e-9);
  const auto three = decompose(kernel, {10, 6});
  EXPECT_TRUE(torch::allclose(product(three), kernel, 1e-4, 1e-5));
  EXPECT_NEAR(three.energy, 1, 1e-9);
  EXPECT_EQ(decompose(torch::randn({8, 4, 1, 1}), {3, 0}).down.sizes(), (std::vector<std::int64_t>{3, 4, 1, 1}));
}

TEST(LowRank, TheEnergyIsThatOfTheProductAndIterationsRaiseIt) {
  torch::manual_seed(2);
  const auto kernel = torch::randn({16, 12, 3, 3});
  const auto start = decompose(kernel, {5, 4}, 0), better = decompose(kernel, {5, 4}, 5);
  EXPECT_GT(better.energy, start.energy);
  const auto lost = (product(better) - kernel).square().sum() / kernel.square().sum();
  EXPECT_NEAR(1 - better.energy, lost.item<double>(), 1e-5);
}

/// A network whose kernels have few directions, as trained ones do, and a little noise.
models::FlatModel simple_network(const models::ModelOptions& network = {"resnet18", 0.5, "small"}) {
  auto model = lived_in(network);
  torch::NoGradGuard no_grad;
  torch::manual_seed(4);
  for (auto& [name, weight] : tensors_of(model)) {
    if (weight.dim() != 4 || weight.size(1) < 16) continue;
    const auto rank = weight.size(1) / 8;
    const auto factors = decompose(weight, {std::min(weight.size(0), rank), weight.size(2) > 1 ? rank : 0});
    const auto smooth = product(factors).view(weight.sizes());
    weight.copy_(smooth + 0.02 * smooth.std() * torch::randn(weight.sizes()));
  }
  return model;
}

TEST(LowRank, ByEnergyKeepsTheFunctionAndLosesMostParameters) {
  auto model = simple_network();
  LowRankOptions options;
  options.energy = 0.99;
  auto done = factorise(model, options);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_GT(done->layers.size(), 10u);
  for (const auto& layer : done->layers) {
    EXPECT_GE(layer.energy, 0.99) << layer.layer;
    EXPECT_LT(layer.after, layer.before) << layer.layer;
  }
  EXPECT_LT(double(done->model.space().trainable()), 0.4 * double(model.space().trainable()));
  EXPECT_LT(difference(model, done->model), 0.25);
  const preceptor::test::TempDir dir;
  ASSERT_TRUE(models::save_model(dir / "m.safetensors", done->model));
  EXPECT_TRUE(models::load_model(dir / "m.safetensors"));
}

TEST(LowRank, ByBudgetLeavesTheShareAskedForAndNoLess) {
  auto model = simple_network();
  for (const double budget : {0.6, 0.3}) {
    LowRankOptions options;
    options.budget = budget;
    auto done = factorise(model, options);
    ASSERT_TRUE(done) << done.error().message;
    const double left = double(done->model.space().trainable()) / double(model.space().trainable());
    EXPECT_LE(left, budget);
    EXPECT_GT(left, 0.8 * budget);
  }
  LowRankOptions options;
  options.budget = 1e-3;
  const auto refused = factorise(model, options);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("cannot be met"));
}

TEST(LowRank, LeavesNoiseDepthwiseAndTinyLayersAlone) {
  auto noise = lived_in({"resnet18", 0.25, "small"});
  LowRankOptions options;
  options.energy = 0.999;
  const auto done = factorise(noise, options).value();
  EXPECT_THAT(done.layers, testing::IsEmpty()) << "white noise has no few directions";
  EXPECT_EQ(done.model.store(), noise.store());
  auto light = lived_in({"mobilenet_v2", 0.35, "small"});
  options.energy = 0.5;
  options.minimum = 1;
  const auto lighter = factorise(light, options).value();
  for (const auto& layer : lighter.layers) EXPECT_THAT(layer.layer, testing::Not(HasSubstr("conv.1.0"))) << "depthwise";
}

TEST(LowRank, ComposesWithPruningFusingAndItself) {
  auto model = simple_network();
  // Half of the channels between the two convolutions of a block.
  auto structure = model.spec().structure;
  structure.shapes = {{"layer3.0.conv1.weight", "64, 64, 3, 3"}, {"layer3.0.conv2.weight", "128, 64, 3, 3"}};
  for (const std::string piece : {"weight", "bias", "running_mean", "running_var"}) structure.shapes["layer3.0.bn1." + piece] = "64";
  auto pruned = restructured(model, structure).value();
  {
    torch::NoGradGuard no_grad;
    auto from = tensors_of(model), to = tensors_of(pruned);
    to.at("layer3.0.conv1.weight").copy_(from.at("layer3.0.conv1.weight").narrow(0, 0, 64));
    to.at("layer3.0.conv2.weight").copy_(from.at("layer3.0.conv2.weight").narrow(1, 0, 64));
    for (const std::string piece : {"weight", "bias", "running_mean", "running_var"})
      to.at("layer3.0.bn1." + piece).copy_(from.at("layer3.0.bn1." + piece).narrow(0, 0, 64));
  }
  LowRankOptions options;
  options.energy = 0.99;
  auto once = factorise(pruned, options);
  ASSERT_TRUE(once) << once.error().message;
  EXPECT_TRUE(once->model.spec().structure.low_rank.contains("layer3.0.conv1"));
  EXPECT_TRUE(once->model.spec().structure.low_rank.contains("layer3.0.conv2"));
  EXPECT_LT(difference(pruned, once->model), 0.25);
  options.energy = 0.5;
  auto twice = factorise(once->model, options);
  ASSERT_TRUE(twice) << twice.error().message;
  EXPECT_GT(twice->layers.size(), 0u);
  EXPECT_LT(twice->model.space().trainable(), once->model.space().trainable());
  auto branched = simple_network({"mobileone", 1, "small", "s1"});
  options.energy = 0.9;
  const auto fused_first = factorise(branched, options);
  ASSERT_TRUE(fused_first) << fused_first.error().message;
  EXPECT_TRUE(fused_first->model.spec().structure.fused);
}

TEST(LowRank, RefusesLayersOfALaterStep) {
  auto model = lived_in({"resnet18", 0.25, "small"});
  models::StructureOptions integers;
  integers.int8 = {{"fc", "observed"}};
  auto rounding = restructured(model, integers).value();
  const auto refused = factorise(rounding, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("before that"));
}

}  // namespace
}  // namespace preceptor::compression
