#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/flat_model.h"
#include "models/segmentation/padding.h"
#include "models/segmentation/shift.h"

namespace preceptor::models {
namespace {

FlatModel make(const ModelSpec& spec) {
  auto model = FlatModel::create(spec);
  EXPECT_TRUE(model) << model.error().message;
  model->initialise(RandomStream(1, "init"));
  return std::move(*model);
}

std::string error_of(const ModelSpec& spec) {
  const auto model = FlatModel::create(spec);
  return model ? "" : model.error().message;
}

class Segmentation : public testing::TestWithParam<ModelSpec> {};

TEST_P(Segmentation, GivesLogitsForEveryPixelAndEveryWeightLearns) {
  auto model = make(GetParam());
  torch::manual_seed(1);
  const auto& task = GetParam().task;
  const auto logits = model.forward(torch::randn({2, task.channels, task.image_size, task.image_size}));
  ASSERT_EQ(logits.sizes(), (at::IntArrayRef{2, task.classes, task.image_size, task.image_size}));
  torch::binary_cross_entropy_with_logits(logits, torch::rand_like(logits)).backward();
  for (const auto& piece : model.space().pieces()) {
    const auto gradient = model.gradients().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size));
    EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << piece.name;
    if (piece.role == Role::kBias || is_statistic(piece.role)) continue;  // a normalisation cancels the bias before it
    EXPECT_GT(gradient.norm().item<double>(), 0) << piece.name;
  }
}

std::vector<ModelSpec> specs() {
  std::vector<ModelSpec> specs;
  for (const int channels : {1, 3})
    for (const int size : {28, 64, 100, 256}) {
      const std::string stem = size == 28 ? "small" : size == 64 ? "half" : "standard";
      specs.push_back({{"unext", 1, stem, "small"}, {channels, channels, size}});
      specs.push_back({{"cmunext", 1, stem, "small"}, {channels, channels, size}});
      specs.push_back({{"unet", 0.25, "standard"}, {channels, channels, size}});
    }
  specs.push_back({{"cmunext", 1, "standard", "base"}, {4, 1, 28}});
  specs.push_back({{"unext", 1, "standard", "base"}, {4, 1, 33}});
  return specs;
}

std::string name_of(const testing::TestParamInfo<ModelSpec>& info) {
  const auto& model = info.param.model;
  return fmt::format("{}_{}{}{}x{}", model.name, model.variant, model.stem, info.param.task.image_size, info.param.task.channels);
}
INSTANTIATE_TEST_SUITE_P(Zoo, Segmentation, testing::ValuesIn(specs()), name_of);

// In double, so that the quotient is exact to about 1e-8; a direction that crosses a corner of ReLU or of a maximum
// within 1e-7 is unlikely, and this seed meets none.
TEST(SegmentationModels, GradientsAreDifferenceQuotients) {
  for (const ModelSpec& spec : {ModelSpec{{"unext", 1, "half"}, {2, 3, 60}}, ModelSpec{{"cmunext", 1, "standard"}, {2, 3, 60}},
                                ModelSpec{{"unet", 0.25, "standard"}, {2, 3, 60}}}) {
    torch::manual_seed(4);
    const auto network = *build(spec);
    network->to(torch::kFloat64);
    const auto images = torch::randn({2, 3, 60, 60}, torch::kFloat64), weights = torch::randn({2, 2, 60, 60}, torch::kFloat64);
    const auto loss = [&] { return (network->forward(images) * weights).mean(); };
    loss().backward();
    torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> direction;
    double expected = 0;
    for (auto& p : network->parameters()) {
      direction.push_back(torch::randn_like(p) * p.abs().mean());
      expected += (direction.back() * p.grad()).sum().item<double>();
    }
    const auto loss_at = [&](double step) {
      for (std::size_t i = 0; i < direction.size(); ++i) network->parameters()[i].add_(direction[i], step);
      const double value = loss().item<double>();
      for (std::size_t i = 0; i < direction.size(); ++i) network->parameters()[i].sub_(direction[i], step);
      return value;
    };
    EXPECT_NEAR((loss_at(1e-7) - loss_at(-1e-7)) / 2e-7, expected, 1e-4 * std::abs(expected)) << spec.model.name;
  }
}

// One matrix product stands for a transposed convolution there, and group_norm for instance_norm.
TEST(SegmentationModels, UNetIsThatOfLibTorchsOwnLayers) {
  const auto network = *build({{"unet", 0.25, "standard"}, {2, 3, 32}});
  torch::manual_seed(5);
  std::map<std::string, torch::Tensor> p;
  for (const auto& item : network->named_parameters()) p[item.key()] = item.value();
  const auto images = torch::randn({2, 3, 32, 32});
  const auto stage = [&](torch::Tensor x, const std::string& name, int stride) {
    for (const std::string conv : {".convs.0.", ".convs.1."}) {
      x = torch::conv2d(x, p[name + conv + "conv.weight"], p[name + conv + "conv.bias"], conv == ".convs.0." ? stride : 1, 1);
      x = torch::instance_norm(x, p[name + conv + "norm.weight"], p[name + conv + "norm.bias"], {}, {}, true, 0.1, 1e-5, false);
      x = torch::leaky_relu(x, 0.01);
    }
    return x;
  };
  std::vector<torch::Tensor> skips{stage(images, "encoder.stages.0.0", 1)};
  for (const int s : {1, 2, 3}) skips.push_back(stage(skips.back(), "encoder.stages." + std::to_string(s) + ".0", 2));
  auto x = skips[3];
  for (const int s : {0, 1, 2}) {
    const auto name = "decoder.transpconvs." + std::to_string(s);
    x = torch::conv_transpose2d(x, p[name + ".weight"], p[name + ".bias"], 2);
    x = stage(torch::cat({x, skips[std::size_t(2 - s)]}, 1), "decoder.stages." + std::to_string(s), 1);
  }
  x = torch::conv2d(x, p["decoder.seg_layer.weight"], p["decoder.seg_layer.bias"]);
  EXPECT_TRUE(torch::allclose(network->forward(images), x, 1e-4, 1e-5));
}

TEST(SegmentationModels, OptionsThatDoNothingAreRefused) {
  EXPECT_NE(error_of({{"unet", 1, "small"}, {1, 1, 28}}).find("stem"), std::string::npos);
  EXPECT_NE(error_of({{"unet", 1, "standard", "large"}, {1, 1, 28}}).find("large"), std::string::npos);
  EXPECT_NE(error_of({{"unext", 0.5, "standard"}, {1, 1, 64}}).find("0.5"), std::string::npos);
  EXPECT_NE(error_of({{"unext", 1, "standard"}, {1, 1, 28}}).find("28"), std::string::npos);
  EXPECT_NE(error_of({{"cmunext", 1, "standard", "tiny"}, {1, 1, 64}}).find("tiny"), std::string::npos);
}

// The definition in the paper's code: pad by 2, roll, cut the middle out.
torch::Tensor rolled(const torch::Tensor& x, std::int64_t axis) {
  const auto groups = torch::constant_pad_nd(x, {0, 0, 2, 2, 2, 2}).chunk(5, 3);
  std::vector<torch::Tensor> moved;
  for (std::size_t g = 0; g < 5; ++g) moved.push_back(groups[g].roll(std::int64_t(g) - 2, axis));
  return torch::cat(moved, 3).narrow(1, 2, x.size(1)).narrow(2, 2, x.size(2));
}

TEST(Shift, IsPaddingRollingAndCuttingForwardsAndBackwards) {
  torch::manual_seed(2);
  for (const auto& [height, width] : {std::pair(7, 5), std::pair(2, 1), std::pair(1, 9)})
    for (const int axis : {1, 2}) {
      const auto a = torch::randn({2, height, width, 64}, torch::requires_grad());
      const auto b = a.detach().clone().requires_grad_();
      const auto weights = torch::randn({2, height, width, 64});
      const auto ours = shift(a, axis), theirs = rolled(b, axis);
      EXPECT_TRUE(torch::equal(ours, theirs)) << height << "×" << width << ", axis " << axis;
      (ours * weights).sum().backward();
      (theirs * weights).sum().backward();
      EXPECT_TRUE(torch::equal(a.grad(), b.grad())) << height << "×" << width << ", axis " << axis;
    }
}

TEST(Padding, RepeatsEdgesAndCroppingUndoesIt) {
  for (const int channels : {1, 3}) {
    const auto x = torch::randn({2, channels, 28, 45}).contiguous(at::MemoryFormat::ChannelsLast);
    const auto padded = pad_to_multiple(x, 32);
    EXPECT_EQ(padded.sizes(), (at::IntArrayRef{2, channels, 32, 64}));
    EXPECT_EQ(padded.suggest_memory_format(), at::MemoryFormat::ChannelsLast);
    EXPECT_TRUE(torch::equal(crop_to(padded, 28, 45), x));
    EXPECT_TRUE(torch::equal(padded.select(2, 0), padded.select(2, 2)));
    EXPECT_TRUE(torch::equal(padded.select(3, 63), padded.select(3, 54)));
  }
}

}  // namespace
}  // namespace preceptor::models
