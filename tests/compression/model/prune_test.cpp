#include "compression/model/prune.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "tests/support/temp_dir.h"
#include "tests/training/made.h"

namespace preceptor::compression {
namespace {

using models::FlatModel;
using models::ModelSpec;
using testing::HasSubstr;

FlatModel made(const ModelSpec& spec) {
  auto model = FlatModel::create(spec).value();
  model.initialise(RandomStream(1, spec.model.name));
  return model;
}

struct Count {
  std::int64_t parameters = 0, macs = 0;
};

/// Every group by half, without rounding.
Count halved(const ModelSpec& spec) {
  auto model = made(spec);
  PruneOptions options;
  options.scope = "uniform";
  options.round_to = 1;
  const auto pruned = prune(model, options);
  EXPECT_TRUE(pruned.has_value()) << pruned.error().message;
  return pruned ? Count{pruned->report.parameters_after, pruned->report.macs_after} : Count{};
}

TEST(Prune, HalvesAResNet18ToThePublishedCounts) {
  // Torch-Pruning (Fang 2023) on torchvision's, p = 0.5, the classifier's outputs ignored.
  const auto count = halved({{"resnet18", 1, "standard"}, {1000, 3, 224}});
  EXPECT_EQ(count.parameters, 3055880);
  EXPECT_EQ(count.macs, 483149824);
}

TEST(Prune, HalvesAMobileNetV2ToTheCountsOfItsTable) {
  Count wanted;
  int side = 112;
  const auto conv = [&](std::int64_t in, std::int64_t out, std::int64_t kernel) {  // and its norm; in: of a group
    wanted.parameters += in * out * kernel * kernel + 2 * out;
    wanted.macs += in * out * kernel * kernel * side * side;
  };
  struct Stage {
    int expansion, channels, repeats, stride;
  };
  std::int64_t in = 16;
  conv(3, in, 3);
  for (const auto& [expansion, channels, repeats, stride] :
       {Stage{1, 16, 1, 1}, {6, 24, 2, 2}, {6, 32, 3, 2}, {6, 64, 4, 2}, {6, 96, 3, 1}, {6, 160, 3, 2}, {6, 320, 1, 1}})
    for (int i = 0; i < repeats; ++i) {
      const std::int64_t hidden = in * expansion;
      if (expansion != 1) conv(in, hidden, 1);
      if (i == 0) side /= stride;
      conv(1, hidden, 3);
      conv(hidden, channels / 2, 1);
      in = channels / 2;
    }
  conv(in, 640, 1);
  wanted.parameters += 640 * 1000 + 1000;
  wanted.macs += 640 * 1000;
  const auto count = halved({{"mobilenet_v2", 1, "standard"}, {1000, 3, 224}});
  EXPECT_EQ(count.parameters, wanted.parameters);
  EXPECT_EQ(count.macs, wanted.macs);
}

TEST(Prune, HalvesADeiTTinyToTheCountsOfItsTable) {
  // Of three heads one goes (1.5 is rounded towards keeping).
  const std::int64_t dim = 96, heads = 2, inner = heads * 64, hidden = 384, patches = 196, tokens = 197, classes = 1000;
  const auto linear = [](std::int64_t in, std::int64_t out) { return in * out + out; };
  const auto block = 2 * 2 * dim + linear(dim, 3 * inner) + linear(inner, dim) + linear(dim, hidden) + linear(hidden, dim);
  const auto block_macs = tokens * (dim * 3 * inner + inner * dim + 2 * dim * hidden) + 2 * heads * tokens * tokens * 64;
  const auto count = halved({{"deit_tiny", 1, "standard", "plain"}, {1000, 3, 224}});
  EXPECT_EQ(count.parameters, linear(3 * 16 * 16, dim) + dim + tokens * dim + 12 * block + 2 * dim + linear(dim, classes));
  EXPECT_EQ(count.macs, patches * 3 * 16 * 16 * dim + 12 * block_macs + dim * classes);
}

TEST(Prune, GloballyKeepsTheCapAndTheMultiple) {
  auto model = made({{"resnet18", 0.5, "small"}, {3, 1, 28}});
  {  // one layer that nothing would miss, another that all would
    torch::NoGradGuard no_grad;
    auto parameters = model.network().named_parameters();
    for (const auto* name : {"layer1.0.conv1.weight", "layer1.0.bn1.weight"}) parameters[name].slice(0, 0, 31).mul_(1e-3);
  }
  PruneOptions options;
  options.ratio = 0.3;
  options.max_layer_ratio = 0.5;
  const auto pruned = prune(model, options).value();
  std::int64_t before = 0, after = 0;
  for (const auto& layer : pruned.report.layers) {
    EXPECT_EQ(layer.after % 8, 0) << layer.name;
    EXPECT_GE(2 * layer.after, layer.before) << layer.name;
    if (layer.name == "layer1.0.conv1") {
      EXPECT_EQ(layer.after, layer.before / 2);
    }
    before += layer.before, after += layer.after;
  }
  EXPECT_NEAR(double(after) / double(before), 0.7, 0.05);
  EXPECT_LT(pruned.report.parameters_after, pruned.report.parameters_before);
  EXPECT_LT(pruned.report.macs_after, pruned.report.macs_before);
}

TEST(Prune, InStepsComesToTheSameSizeAndTrainsInBetween) {
  auto model = made({{"mobilenet_v2", 0.5, "small"}, {3, 1, 28}});
  const auto before = model.store();
  PruneOptions options;
  options.scope = "uniform";
  options.ratio = 0.5;
  const auto at_once = prune(model, options).value();
  options.steps = 3;
  std::vector<std::size_t> sizes;
  const auto in_steps = prune(model, options, {}, [&](FlatModel& smaller, int steps_done) -> Result<void> {
    EXPECT_EQ(steps_done, int(sizes.size()) + 1);
    sizes.push_back(smaller.space().trainable());
    return {};
  }).value();
  ASSERT_EQ(sizes.size(), 2u);
  EXPECT_LT(sizes[0], model.space().trainable());
  EXPECT_LT(sizes[1], sizes[0]);
  EXPECT_LT(in_steps.model.space().trainable(), sizes[1]);
  EXPECT_EQ(in_steps.model.space().architecture_hash(), at_once.model.space().architecture_hash());
  EXPECT_EQ(model.store(), before);
}

TEST(Prune, GoesOnFromAPrunedModelAndItsFile) {
  const test::TempDir dir;
  auto model = made({{"shufflenet_v2", 0.5, "small"}, {3, 1, 28}});
  PruneOptions options;
  options.ratio = 0.25;
  auto once = prune(model, options).value();
  ASSERT_TRUE(models::save_model(dir / "once.safetensors", once.model).has_value());
  auto loaded = models::load_model(dir / "once.safetensors").value();
  EXPECT_EQ(loaded.model.store(), once.model.store());
  const auto twice = prune(loaded.model, options).value();
  EXPECT_LT(twice.report.parameters_after, once.report.parameters_after);
  EXPECT_EQ(twice.report.parameters_before, once.report.parameters_after);
}

/// A group of four channels between two layers; the channels' outgoing weights are given.
struct Made {
  explicit Made(const std::vector<float>& size) : model(training::test::made_model("test-tiny", 2, 1, 1, 8)) {
    torch::NoGradGuard no_grad;
    auto parameters = model.network().named_parameters();
    for (std::size_t c = 0; c < 8; ++c) {
      const auto at = std::int64_t(c);
      parameters["in.weight"][at].fill_(size[c]);
      parameters["norm.weight"][at] = size[c];
      parameters["out.weight"].select(1, at).fill_(size[c]);
    }
  }
  at::Tensor scores(const std::string& criterion, const Evidence& evidence = {}) {
    const auto channels = find_channels(model).value();
    EXPECT_EQ(channels.groups.size(), 1u);
    auto made = (**criteria().find(criterion))(model, evidence).value();
    return made->scores(channels.groups[0]);
  }
  FlatModel model;
};

TEST(Criteria, FindTheChannelsThatMatterLeast) {
  Made made({5, 1, 4, 3, 2, 6, 7, 8});
  const auto least_first = torch::tensor({1, 4, 3, 2, 0, 5, 6, 7}, torch::kInt64);
  for (const auto* criterion : {"group_l2", "bn_scale"}) EXPECT_TRUE(made.scores(criterion).argsort().equal(least_first)) << criterion;
  // 64 weights in, a scale, two weights out.
  EXPECT_NEAR(made.scores("group_l2")[0].item<double>(), 25.0 * (64 + 1 + 2), 1e-3);
  EXPECT_NEAR(made.scores("bn_scale")[0].item<double>(), 5, 1e-6);
}

TEST(Criteria, OfTheGeometricMedianFindsWhatTheOthersCanTell) {
  Made made({-9, 9, 0.5, -7, 7, 6, -6, 8});
  EXPECT_EQ(made.scores("fpgm").argmin().item<std::int64_t>(), 2) << "in the middle of the others, though not the smallest by much";
  Made shifted({10, 28, 19.5, 12, 26, 25, 13, 27});
  EXPECT_EQ(shifted.scores("fpgm").argmin().item<std::int64_t>(), 2);
  EXPECT_EQ(shifted.scores("group_l2").argmin().item<std::int64_t>(), 0);
}

TEST(Criteria, OfTaylorAsksTheLoss) {
  const auto images = training::test::noise(16, 1, 8);
  training::TrainingOptions training;
  auto objective = training::make_cross_entropy(training, images);
  auto model = training::test::made_model("test-tiny", 2, 1, 1, 8);
  {  // a channel that is always on, and large, but that no class heeds
    torch::NoGradGuard no_grad;
    auto parameters = model.network().named_parameters();
    for (const auto* name : {"in.weight", "out.weight"}) parameters[name].normal_();
    parameters["out.weight"].select(1, 3).fill_(0);
    parameters["norm.bias"].fill_(1);
    parameters["in.weight"][3].mul_(100);
  }
  const auto before = model.store();
  const auto channels = find_channels(model).value();
  const auto make = **criteria().find("taylor");
  auto criterion = make(model, {objective.get(), &images, 4, 8}).value();
  const auto scores = criterion->scores(channels.groups[0]);
  EXPECT_EQ(scores[3].item<double>(), 0);
  EXPECT_EQ(scores.eq(0).sum().item<int>(), 1);
  EXPECT_EQ(model.store(), before);
  EXPECT_EQ(model.gradients().abs().sum().item<double>(), 0);
  const auto without = make(model, {});
  ASSERT_FALSE(without.has_value());
  EXPECT_THAT(without.error().message, HasSubstr("needs images"));
}

}  // namespace
}  // namespace preceptor::compression
