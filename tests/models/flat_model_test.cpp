#include "models/flat_model.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "common/file.h"
#include "tests/support/temp_dir.h"

namespace preceptor::models {
namespace {

const ModelSpec kSmall{{"shufflenet_v2", 0.5, "small"}, {3, 1, 28}};

FlatModel make(std::uint64_t seed = 1, const ModelSpec& spec = kSmall) {
  auto model = FlatModel::create(spec);
  EXPECT_TRUE(model) << model.error().message;
  model->initialise(RandomStream(seed, "init"));
  return std::move(*model);
}

TEST(FlatModel, ParametersAreViewsOfTheFlatBuffer) {
  auto model = make();
  const auto images = torch::ones({2, 1, 28, 28});
  model.network().eval();
  const auto before = model.forward(images);
  torch::NoGradGuard no_grad;
  const auto& last = model.space().pieces().back();
  EXPECT_EQ(last.name, "fc.bias");
  model.values().narrow(0, std::int64_t(last.offset), std::int64_t(last.size)).add_(1);
  EXPECT_TRUE(torch::allclose(model.forward(images), before + 1));
}

TEST(FlatModel, GradientsArriveInTheFlatBufferAndStatisticsHaveNone) {
  auto model = make();
  model.network().train();
  model.forward(torch::randn({4, 1, 28, 28})).square().sum().backward();
  for (const auto& piece : model.space().pieces()) {
    const double norm = model.gradients().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).norm().item<double>();
    if (is_statistic(piece.role)) {
      EXPECT_EQ(norm, 0) << piece.name;
    }
  }
  EXPECT_GT(model.gradients().norm().item<double>(), 0);
}

TEST(FlatModel, InitialValuesDependOnTheStreamAlone) {
  EXPECT_EQ(model_hash(make(7).store()), model_hash(make(7).store()));
  EXPECT_NE(model_hash(make(7).store()), model_hash(make(8).store()));
}

TEST(FlatModel, AnotherArchitectureHasAnotherHash) {
  auto other = kSmall;
  other.task.classes = 4;
  EXPECT_NE(make().space().architecture_hash(), make(1, other).space().architecture_hash());
}

TEST(ModelFile, RoundTripKeepsEveryFloatAndTheSpec) {
  test::TempDir dir;
  auto model = make();
  ASSERT_TRUE(save_model(dir / "m.safetensors", model, {{"note", "x"}}));
  auto loaded = load_model(dir / "m.safetensors");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(model_hash(loaded->model.store()), model_hash(model.store()));
  EXPECT_EQ(loaded->model.spec().model.name, "shufflenet_v2");
  EXPECT_EQ(loaded->metadata.at("note"), "x");
}

TEST(ModelFile, ValuesThatAreNotFiniteAreRefused) {
  test::TempDir dir;
  auto model = make();
  {
    torch::NoGradGuard no_grad;
    model.values()[3] = std::numeric_limits<float>::quiet_NaN();
  }
  ASSERT_TRUE(save_model(dir / "m.safetensors", model));
  const auto loaded = load_model(dir / "m.safetensors");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Code::kCorrupt);
}

TEST(ModelFile, ATensorOfAnotherShapeIsRefused) {
  test::TempDir dir;
  auto model = make();
  ASSERT_TRUE(save_model(dir / "m.safetensors", model));
  auto file = *SafetensorsFile::load(dir / "m.safetensors");
  auto tensors = file.tensors();
  auto metadata = file.metadata();
  const auto swap = metadata["spec"].find("classes: 3");
  metadata["spec"].replace(swap, 10, "classes: 4");
  ASSERT_TRUE(write_file(dir / "m.safetensors", encode_safetensors(tensors, metadata)));
  const auto loaded = load_model(dir / "m.safetensors");
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("fc."), std::string::npos) << loaded.error().message;
}

TEST(Zoo, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  const auto model = FlatModel::create({{"resnet19", 1, "small"}, {2, 1, 28}});
  ASSERT_FALSE(model);
  EXPECT_NE(model.error().message.find("resnet18"), std::string::npos);
}

}  // namespace
}  // namespace preceptor::models
