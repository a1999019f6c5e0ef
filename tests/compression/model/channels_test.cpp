#include "compression/model/channels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "compression/model/cut.h"
#include "compression/model/labels.h"
#include "models/layers.h"
#include "models/stem.h"
#include "models/structure.h"
#include "tests/support/temp_dir.h"

namespace preceptor::compression {
namespace {

using models::FlatModel;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;

/// With statistics and scales as after some training, so that every channel has its own say.
void train_a_little(FlatModel& model) {
  RandomStream random(2, "values");
  auto values = model.store();
  for (const auto& piece : model.space().pieces())
    for (auto& value : std::span(values).subspan(piece.offset, piece.size)) {
      if (piece.role == Role::kNormVariance || piece.role == Role::kNormScale) value = float(random.uniform(0.7, 1.4));
      else if (piece.role != Role::kWeight) value += float(0.1 * random.normal());
    }
  model.load(values);
  model.network().eval();
}

FlatModel made(const models::ModelOptions& options, const models::TaskOptions& task = {3, 3, 32}) {
  auto model = models::create_at_size(options, task).value();
  model.initialise(RandomStream(1, options.name));
  train_a_little(model);
  return model;
}

/// The zoo, without the tests' own networks.
std::vector<std::string> published() {
  auto names = models::zoo().names();
  std::erase_if(names, [](const auto& name) { return name.starts_with("test-"); });
  return names;
}

/// Of each group every other unit, from the second on.
Kept half_of(const Channels& channels) {
  Kept kept(std::size_t(channels.units), true);
  for (const auto& group : channels.groups)
    for (std::int64_t u = 0; u < group.units; u += 2)
      if (group.units - u / 2 > group.least) kept[std::size_t(group.first + u)] = false;
  return kept;
}

double relative_error(const at::Tensor& found, const at::Tensor& wanted) {
  return ((found - wanted).abs().max() / wanted.abs().max()).item<double>();
}

const Group* find(const Channels& channels, const std::string& name) {
  for (const auto& group : channels.groups)
    if (group.name == name) return &group;
  return nullptr;
}

TEST(Labels, AreShortAsFarAsJoinsAllow) {
  Labels labels;
  const auto rows = labels.fresh(3), columns = labels.fresh(2);
  const auto table = rows.view({3, 1}).expand({3, 2});
  EXPECT_EQ(labels.shortest(table).sizes(), (std::vector<std::int64_t>{3, 1}));
  const auto six = labels.fresh(6).view({3, 2});
  EXPECT_EQ(labels.shortest(six).sizes(), (std::vector<std::int64_t>{3, 2}));
  EXPECT_EQ(labels.count_along(six, 0), 3);
  EXPECT_EQ(labels.count_along(six, 1), 2);
  EXPECT_EQ(labels.along(six, 1).sizes(), (std::vector<std::int64_t>{2}));
  EXPECT_EQ(labels.shortest(six).sizes(), (std::vector<std::int64_t>{1, 2}));
  labels.fix(columns, "here");
  labels.join(columns, rows[0].expand({2}));
  EXPECT_TRUE(labels.fixed(rows[0].item<std::int64_t>()));
  EXPECT_EQ(labels.reason(rows[0].item<std::int64_t>()), "here");
  EXPECT_FALSE(labels.fixed(rows[1].item<std::int64_t>()));
}

TEST(Channels, OfEveryModelCutAreWhatTheyAreMasked) {
  torch::NoGradGuard no_grad;
  for (const auto& name : published()) {
    SCOPED_TRACE(name);
    auto model = made((*models::zoo().find(name))->sizes.front());
    const auto before = model.store();
    const auto channels = find_channels(model);
    ASSERT_TRUE(channels.has_value()) << channels.error().message;
    EXPECT_FALSE(channels->groups.empty());
    for (const auto& unprunable : channels->unprunable) EXPECT_FALSE(unprunable.reason.empty());
    torch::manual_seed(1);
    const auto images = torch::randn({3, 3, 32, 32});
    EXPECT_LT(relative_error(run_masked(*channels, Kept(std::size_t(channels->units), true), images), model.forward(images)), 1e-5);
    const auto kept = half_of(*channels);
    auto smaller = cut(model, *channels, kept);
    ASSERT_TRUE(smaller.has_value()) << smaller.error().message;
    EXPECT_LT(smaller->space().trainable(), model.space().trainable());
    EXPECT_LT(relative_error(smaller->forward(images), run_masked(*channels, kept, images)), 1e-4);
    EXPECT_GT(relative_error(smaller->forward(images), model.forward(images)), 1e-3) << "something must have gone";
    EXPECT_EQ(model.store(), before);
  }
}

TEST(Channels, OfACutModelTrainAndTravelAsItsSpecSays) {
  const test::TempDir dir;
  for (const auto& name : published()) {
    SCOPED_TRACE(name);
    auto model = made((*models::zoo().find(name))->sizes.front());
    const auto channels = find_channels(model).value();
    auto smaller = cut(model, channels, half_of(channels)).value();
    ASSERT_TRUE(models::save_model(dir / "m.safetensors", smaller).has_value());
    auto loaded = models::load_model(dir / "m.safetensors");
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    EXPECT_EQ(loaded->model.store(), smaller.store());
    auto built = FlatModel::create(smaller.spec());  // as a node builds what a plan names
    ASSERT_TRUE(built.has_value()) << built.error().message;
    EXPECT_EQ(built->space().architecture_hash(), smaller.space().architecture_hash());
    smaller.network().train();
    smaller.forward(torch::randn({4, 3, 32, 32})).square().mean().backward();
    EXPECT_GT(smaller.gradients().abs().sum().item<double>(), 0);
    EXPECT_TRUE(smaller.gradients().isfinite().all().item<bool>());
  }
}

TEST(Channels, CoupleThroughResidualsNormsAndDepthwiseConvolutions) {
  auto resnet = made({"resnet18", 0.25});
  const auto of_resnet = find_channels(resnet).value();
  EXPECT_EQ(of_resnet.groups.size(), 12u) << "4 stages and a layer within each of 8 blocks";
  const auto* stream = find(of_resnet, "conv1");
  ASSERT_NE(stream, nullptr);
  EXPECT_EQ(stream->units, 16);
  EXPECT_THAT(stream->slots, Contains(Field(&Slot::parameter, "layer1.1.bn2.running_var")));
  EXPECT_THAT(stream->slots, Contains(Field(&Slot::parameter, "layer2.0.downsample.0.weight")));
  auto mobilenet = made({"mobilenet_v2", 0.35});
  const auto of_mobilenet = find_channels(mobilenet).value();
  const auto* hidden = find(of_mobilenet, "features.2.conv.0.0");
  ASSERT_NE(hidden, nullptr);
  EXPECT_THAT(hidden->slots, Contains(Field(&Slot::parameter, "features.2.conv.1.0.weight")));
  EXPECT_THAT(hidden->slots, Contains(Field(&Slot::parameter, "features.2.conv.2.weight")));
  EXPECT_THAT(of_mobilenet.unprunable, Contains(Field(&Unprunable::reason, "the classes")));
}

TEST(Channels, OfAnAttentionAreWholeHeads) {
  auto model = made({"deit_tiny", 1, "small", "plain"});
  const auto channels = find_channels(model).value();
  EXPECT_EQ(channels.groups.size(), 1u + 12 * 2) << "the stream, and heads and hidden layer of each block";
  const auto* heads = find(channels, "blocks.3.attn.qkv");
  ASSERT_NE(heads, nullptr);
  EXPECT_EQ(heads->units, 3);
  EXPECT_EQ(heads->channels_a_unit, 3 * 64);
}

TEST(Channels, OfAnAttentionOverTwoScalesAreWholeHeadsOfBoth) {
  auto model = made({"efficientvit_b0"});
  const auto channels = find_channels(model).value();
  const auto* heads = find(channels, "stages.2.blocks.1.context_module.main.qkv.conv");
  ASSERT_NE(heads, nullptr);
  EXPECT_EQ(heads->units, 4);
  EXPECT_EQ(heads->channels_a_unit, 3 * 16);
  EXPECT_THAT(heads->slots, Contains(Field(&Slot::parameter, "stages.2.blocks.1.context_module.main.aggreg.1.weight")));
}

TEST(Channels, ThatASpecCutsInconsistentlyAreRefused) {
  models::ModelSpec spec{{"resnet18", 0.25, "small"}, {3, 1, 28}, {}};
  spec.structure.shapes = {{"layer1.0.conv1.weight", "8, 16, 3, 3"}};
  const auto model = FlatModel::create(spec);
  ASSERT_FALSE(model.has_value());
  EXPECT_EQ(model.error().code, Code::kInvalid);
  EXPECT_THAT(model.error().message, HasSubstr("do not fit each other"));
}

TEST(Channels, ThatTheCodeCountsOnStay) {
  struct Stubborn : models::Model {
    explicit Stubborn(int classes) : first(1, 8), hidden(8, 8), last(8, classes) {
      register_module("first", first), register_module("hidden", hidden), register_module("last", last);
    }
    torch::Tensor forward(torch::Tensor x) override {
      x = first(x.mean({2, 3})).relu();
      return last(hidden(x).view({x.size(0), 8}));
    }
    models::Linear first, hidden, last;
  };
  const models::RegisterModel registered{
      "test-stubborn", {"CNN", "classification", "", [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                          return std::make_shared<Stubborn>(spec.task.classes);
                        }}};
  auto model = FlatModel::create({{"test-stubborn", 1, "small"}, {3, 1, 8}}).value();
  const auto channels = find_channels(model).value();
  EXPECT_NE(find(channels, "first"), nullptr);
  EXPECT_EQ(find(channels, "hidden"), nullptr);
  EXPECT_THAT(channels.unprunable, Contains(Field(&Unprunable::reason, HasSubstr("code counts on"))));
}

TEST(Channels, OfPrunedFactorisedAndFusedNetworksCanGoAsWell) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  const auto images = torch::randn({2, 3, 32, 32});
  models::ModelSpec factorised{{"resnet18", 0.25, "small"}, {3, 3, 32}, {}}, fused{{"repvit", 1, "small"}, {3, 3, 32}, {}};
  factorised.structure.low_rank = {{"layer1.0.conv1", "8, 8"}, {"layer2.0.downsample.0", "12"}};
  fused.model = (*models::zoo().find("repvit"))->sizes.front();
  fused.structure.fused = true;
  for (const auto& spec : {factorised, fused}) {
    SCOPED_TRACE(spec.model.name);
    auto model = FlatModel::create(spec).value();
    model.values().normal_(0, 0.1);
    train_a_little(model);
    std::optional<FlatModel> smaller;
    for (int time = 0; time < 2; ++time) {
      auto& current = smaller ? *smaller : model;
      const auto channels = find_channels(current).value();
      const auto kept = half_of(channels);
      const auto wanted = run_masked(channels, kept, images);
      smaller = cut(current, channels, kept).value();
      EXPECT_LT(relative_error(smaller->forward(images), wanted), 1e-4);
    }
  }
}

TEST(Channels, OfNetworksWithLoraOrInt8LayersAreRefused) {
  models::ModelSpec spec{{"resnet18", 0.25, "small"}, {3, 1, 28}, {}};
  spec.structure.lora = {{"fc", "2"}};
  auto model = FlatModel::create(spec).value();
  const auto channels = find_channels(model);
  ASSERT_FALSE(channels.has_value());
  EXPECT_EQ(channels.error().code, Code::kInvalid);
}

}  // namespace
}  // namespace preceptor::compression
