#include "models/structure.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/flat_model.h"
#include "models/layers.h"
#include "tests/support/temp_dir.h"

namespace preceptor::models {
namespace {

using testing::HasSubstr;

ModelSpec resnet() { return {{"resnet18", 0.25, "small"}, {3, 1, 28}}; }

TEST(Structure, AFactorisedLayerIsTheProductOfItsFactors) {
  torch::NoGradGuard no_grad;
  auto spec = resnet();
  spec.structure.low_rank = {{"layer1.0.conv1", "8, 4"}, {"fc", "2"}, {"layer2.0.downsample.0", "5"}};
  auto model = FlatModel::create(spec).value();
  const auto& pieces = model.space().pieces();
  const auto shape = [&](const std::string& name) {
    for (const auto& piece : pieces)
      if (piece.name == name) return piece.shape;
    return std::vector<std::int64_t>{};
  };
  EXPECT_EQ(shape("layer1.0.conv1.down.weight"), (std::vector<std::int64_t>{4, 16, 1, 1}));
  EXPECT_EQ(shape("layer1.0.conv1.core.weight"), (std::vector<std::int64_t>{8, 4, 3, 3}));
  EXPECT_EQ(shape("layer1.0.conv1.up.weight"), (std::vector<std::int64_t>{16, 8, 1, 1}));
  EXPECT_EQ(shape("layer1.0.conv1.weight"), std::vector<std::int64_t>{});
  EXPECT_EQ(shape("fc.up.bias"), (std::vector<std::int64_t>{3}));
  EXPECT_EQ(shape("layer2.0.downsample.0.up.weight"), (std::vector<std::int64_t>{32, 5, 1, 1}));
  Linear layer(torch::nn::LinearOptions(6, 4));
  layer->factorise({2, 0});
  auto parameters = layer->named_parameters();
  parameters["down.weight"].normal_();
  parameters["up.weight"].normal_();
  parameters["up.bias"].normal_();
  const auto x = torch::randn({5, 6});
  EXPECT_TRUE(torch::allclose(layer(x), torch::linear(x, parameters["up.weight"].mm(parameters["down.weight"]), parameters["up.bias"]), 1e-5, 1e-6));
}

TEST(Structure, PrunedShapesBuildANetworkThatRunsAndTrains) {
  auto spec = ModelSpec{{"mobilenet_v2", 0.35, "small"}, {3, 1, 28}};
  // The hidden channels of the second block: 1×1 out, norm, depthwise, norm, 1×1 in.
  const std::string block = "features.2.conv.";
  spec.structure.shapes = {{block + "0.0.weight", "24, 8, 1, 1"}, {block + "1.0.weight", "24, 1, 3, 3"}, {block + "2.weight", "8, 24, 1, 1"}};
  for (const std::string norm : {"0.1.", "1.1."})
    for (const std::string piece : {"weight", "bias", "running_mean", "running_var"}) spec.structure.shapes[block + norm + piece] = "24";
  auto model = FlatModel::create(spec);
  ASSERT_TRUE(model.has_value()) << model.error().message;
  torch::NoGradGuard no_grad;
  model->values().fill_(0.5);
  EXPECT_EQ(model->forward(torch::randn({2, 1, 28, 28})).sizes(), (std::vector<std::int64_t>{2, 3}));
  EXPECT_LT(model->space().trainable(), FlatModel::create({spec.model, spec.task})->space().trainable());
}

TEST(Structure, SurvivesAModelFile) {
  const test::TempDir dir;
  auto spec = resnet();
  spec.structure.low_rank = {{"fc", "2"}};
  spec.structure.int8 = {{"layer1.0.conv2", "observed"}};
  auto model = FlatModel::create(spec).value();
  model.values().fill_(0.25);
  ASSERT_TRUE(save_model(dir / "m.safetensors", model).has_value());
  auto loaded = load_model(dir / "m.safetensors");
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
  EXPECT_EQ(loaded->model.spec().structure.low_rank, spec.structure.low_rank);
  EXPECT_EQ(loaded->model.store(), model.store());
  EXPECT_EQ(loaded->model.space().architecture_hash(), model.space().architecture_hash());
}

TEST(Structure, AHeadWithLoraTrainsButItsLowerFactorDoesNot) {
  auto spec = resnet();
  spec.structure.lora = {{"fc", "2"}};
  auto model = FlatModel::create(spec).value();
  for (const auto& piece : model.space().pieces()) {
    if (piece.name == "fc.lora_down.weight") {
      EXPECT_EQ(piece.role, Role::kFrozen);
    }
    if (piece.name == "fc.weight" || piece.name == "fc.lora_up.weight") {
      EXPECT_EQ(piece.role, Role::kWeight);
    }
  }
  EXPECT_EQ(head_of(model.network()), "fc");
}

TEST(Structure, LoraLeavesOnlyItsUpperFactorsAndTheHeadToTrain) {
  auto spec = resnet();
  spec.structure.lora = {{"layer1.0.conv1", "2"}};
  auto model = FlatModel::create(spec).value();
  std::size_t trained = 0;
  for (const auto& piece : model.space().pieces())
    if (!is_frozen(piece.role) && !is_statistic(piece.role)) {
      trained += piece.size;
      EXPECT_TRUE(piece.name == "layer1.0.conv1.lora_up.weight" || piece.name.starts_with("fc.")) << piece.name;
    }
  EXPECT_EQ(trained, model.space().trainable());
  EXPECT_EQ(trained, std::size_t(16 * 2 + 3 * 128 + 3));
}

TEST(Structure, WhatDoesNotFitIsRefusedByName) {
  const auto refuse = [](auto change, const std::string& reason) {
    auto spec = resnet();
    change(spec.structure);
    const auto model = FlatModel::create(spec);
    ASSERT_FALSE(model.has_value()) << reason;
    EXPECT_EQ(model.error().code, Code::kInvalid);
    EXPECT_THAT(model.error().message, HasSubstr(reason));
  };
  using S = StructureOptions;
  refuse([](S& s) { s.low_rank = {{"nothing", "2"}}; }, "no layer 'nothing'");
  refuse([](S& s) { s.low_rank = {{"fc", "9999"}}; }, "rank 9999 does not fit");
  refuse([](S& s) { s.low_rank = {{"layer1.0.conv1", "2"}}; }, "do not fit");
  refuse([](S& s) { s.low_rank = {{"fc", "two"}}; }, "no list of numbers");
  refuse([](S& s) { s.low_rank = {{"fc", "-1"}}; }, "no list of numbers");
  refuse([](S& s) { s.shapes = {{"conv1.weight", "999, 1, 3, 3"}}; }, "cannot become");
  refuse([](S& s) { s.shapes = {{"conv1.weight", "4"}}; }, "cannot become");
  refuse([](S& s) { s.shapes = {{"conv9.weight", "4"}}; }, "no parameter 'conv9.weight'");
  refuse([](S& s) { s.lora = {{"fc", "0"}}; }, "no list of numbers");
  refuse([](S& s) { s.int8 = {{"fc", "sometimes"}}; }, "'observed' or 'learned'");
}

}  // namespace
}  // namespace preceptor::models
