#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/flat_model.h"
#include "models/kernels/kernels.h"

namespace preceptor::models {
namespace {

FlatModel make(const ModelSpec& spec) {
  auto model = FlatModel::create(spec);
  EXPECT_TRUE(model) << model.error().message;
  model->initialise(RandomStream(1, "init"));
  return std::move(*model);
}

torch::Tensor images_for(const TaskOptions& task, int batch) {
  torch::manual_seed(1);
  return torch::randn({batch, task.channels, task.image_size, task.image_size});
}

/// The models of linear complexity, at every stem, in grey and colour.
class Linear : public testing::TestWithParam<ModelSpec> {};

TEST_P(Linear, EveryWeightLearns) {
  auto model = make(GetParam());
  const auto logits = model.forward(images_for(GetParam().task, 2));
  ASSERT_EQ(logits.size(1), GetParam().task.classes);
  (logits * torch::randn_like(logits)).sum().backward();
  const bool one_token = GetParam().model.stem == "standard" && GetParam().task.image_size <= 32;
  for (const auto& piece : model.space().pieces()) {
    const auto gradient = model.gradients().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size));
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << piece.name;
    if (one_token && piece.name.ends_with("A_log")) continue;  // no state is carried over
    if (!is_statistic(piece.role)) {
      EXPECT_GT(gradient.norm().item<double>(), 0) << piece.name;
    }
  }
}

TEST_P(Linear, AnImageIsJudgedByItselfInEvaluation) {
  auto model = make(GetParam());
  model.network().eval();
  torch::NoGradGuard no_grad;
  const auto images = images_for(GetParam().task, 3);
  const auto all = model.forward(images);
  for (int i = 0; i < 3; ++i) {
    const auto alone = model.forward(images.narrow(0, i, 1));
    EXPECT_TRUE(torch::allclose(alone, all.narrow(0, i, 1), 1e-3, 1e-5)) << (alone - all.narrow(0, i, 1)).abs().max();
  }
  EXPECT_FALSE(torch::allclose(all[0], all[1]));
}

TEST_P(Linear, KernelsAndReferenceAgreeThroughTheWholeNetwork) {
  auto model = make(GetParam());
  model.network().eval();
  torch::NoGradGuard no_grad;
  const auto images = images_for(GetParam().task, 1);
  const auto fast = model.forward(images);
  kernels::UseReference reference;
  const auto slow = model.forward(images);
  EXPECT_TRUE(torch::allclose(fast, slow, 1e-3, 1e-5)) << (fast - slow).abs().max();
}

std::vector<ModelSpec> specs() {
  std::vector<ModelSpec> specs;
  for (const auto& [name, variant] : {std::pair("mambaout", "micro"), std::pair("medmamba", "micro"),
                                      std::pair("vision_rwkv", "tiny"), std::pair("ultralight_vm_unet", "")})
    for (const int channels : {1, 3})
      for (const auto& [stem, size] : {std::pair("small", 28), std::pair("half", 64), std::pair("standard", 96)})
        specs.push_back({{name, 1, stem, variant}, {channels + 1, channels, size}});
  for (const int size : {28, 29, 100}) specs.push_back({{"ultralight_vm_unet", 1, "standard"}, {1, 1, size}});
  specs.push_back({{"medmamba", 1, "standard", "mid"}, {2, 1, 77}});
  specs.push_back({{"mambaout", 1, "half", "femto"}, {2, 1, 37}});
  return specs;
}
std::string name_of(const testing::TestParamInfo<ModelSpec>& info) {
  const auto &model = info.param.model;
  const auto &task = info.param.task;
  return fmt::format("{}_{}{}{}x{}", model.name, model.variant, model.stem, task.image_size, task.channels);
}
INSTANTIATE_TEST_SUITE_P(Zoo, Linear, testing::ValuesIn(specs()), name_of);

TEST(LinearZoo, AnImageThatAStemCannotTakeIsRefused) {
  const auto error_of = [](const ModelSpec& spec) {
    const auto model = build(spec);
    return model ? "" : model.error().message;
  };
  EXPECT_NE(error_of({{"medmamba", 1, "standard"}, {2, 1, 28}}).find("32 px"), std::string::npos);
  EXPECT_NE(error_of({{"vision_rwkv", 1, "standard"}, {2, 1, 28}}).find("16 px"), std::string::npos);
  EXPECT_NE(error_of({{"vision_rwkv", 1, "half"}, {2, 1, 28}}).find("8 px"), std::string::npos);
  EXPECT_NE(error_of({{"medmamba", 1, "small", "base"}, {2, 1, 28}}).find("micro, mid and tiny"), std::string::npos);
  EXPECT_NE(error_of({{"mambaout", 0.5, "small"}, {2, 1, 28}}).find("width 1 only"), std::string::npos);
}

/// MedMamba's micro and MambaOut's micro are to differ by what stands in a block, not by widths and depths.
TEST(LinearZoo, TheControlHasTheWidthsAndDepthsOfWhatItControls) {
  const auto shape_of = [](const char* name, const char* marker) {
    std::map<std::int64_t, int> blocks;
    const auto model = make({{name, 1, "small", "micro"}, {2, 1, 28}});
    for (const auto& piece : model.space().pieces())
      if (piece.name.ends_with(marker)) ++blocks[piece.shape[0]];
    return blocks;
  };
  const std::map<std::int64_t, int> expected{{32, 1}, {64, 1}, {128, 2}, {256, 1}}, halves{{16, 1}, {32, 1}, {64, 2}, {128, 1}};
  EXPECT_EQ(shape_of("mambaout", ".fc2.bias"), expected);
  EXPECT_EQ(shape_of("medmamba", ".ln_1.bias"), halves);  // of each block's channels, half are scanned
}

}  // namespace
}  // namespace preceptor::models
