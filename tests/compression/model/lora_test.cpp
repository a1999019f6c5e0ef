#include "compression/model/lora.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "compression/model/restructure.h"
#include "models/structure.h"
#include "tests/compression/model/made_networks.h"
#include "tests/support/temp_dir.h"

namespace preceptor::compression {
namespace {

using test::difference;
using test::lived_in;
using testing::HasSubstr;

const LoraOptions kRank4{4, {}};

models::FlatModel with_lora(const models::ModelOptions& network = {"resnet18", 0.25, "small"}, std::uint64_t seed = 1) {
  auto model = lived_in(network, 2);
  auto added = add_lora(model, kRank4, seed);
  EXPECT_TRUE(added) << added.error().message;
  return std::move(*added);
}

void draw_upper_factors(models::FlatModel& model, int seed) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(seed);
  for (auto& [name, tensor] : tensors_of(model))
    if (name.ends_with("lora_up.weight")) tensor.normal_(0, 0.1);
}

TEST(Lora, BeginsAsTheSameFunctionWithAStreamsLowerFactors) {
  auto model = lived_in({"resnet18", 0.25, "small"}, 2);
  auto added = with_lora();
  EXPECT_EQ(difference(model, added), 0);
  EXPECT_EQ(added.store(), with_lora().store());
  EXPECT_NE(added.store(), with_lora({"resnet18", 0.25, "small"}, 2).store());
  const auto& lora = added.spec().structure.lora;
  EXPECT_EQ(lora.size(), 20u) << "all convolutions; the head trains whole";
  EXPECT_EQ(lora.at("conv1"), "1") << "no more than the channels of one image";
  EXPECT_LT(double(added.space().trainable()), 0.15 * double(model.space().trainable()));
}

TEST(Lora, MergesIntoThePlainNetwork) {
  for (const auto& network : {models::ModelOptions{"resnet18", 0.25, "small"}, models::ModelOptions{"deit_tiny", 1, "small", "plain"}}) {
    SCOPED_TRACE(network.name);
    auto model = with_lora(network);
    draw_upper_factors(model, 3);
    auto merged = merge_lora(model);
    ASSERT_TRUE(merged) << merged.error().message;
    EXPECT_TRUE(merged->spec().structure.lora.empty());
    EXPECT_LT(difference(model, *merged), 1e-4);
    EXPECT_EQ(merge_lora(*merged).value().store(), merged->store());
  }
}

TEST(Lora, TheMeanOfSitesAdditionsIsTheAdditionOfTheMean) {
  auto a = with_lora(), b = with_lora(), mean = with_lora();
  draw_upper_factors(a, 1);
  draw_upper_factors(b, 2);
  torch::NoGradGuard no_grad;
  mean.values().copy_((a.values() + b.values()) / 2);
  const auto weights_of_mean = merge_lora(mean).value().store(), x = merge_lora(a).value().store(), y = merge_lora(b).value().store();
  double apart = 0;
  for (std::size_t i = 0; i < x.size(); ++i) apart = std::max(apart, std::abs(double(weights_of_mean[i]) - (double(x[i]) + y[i]) / 2));
  EXPECT_LT(apart, 1e-5);
}

TEST(Lora, TrainsItsUpperFactorsTheHeadAndStatisticsOnly) {
  for (const std::string optimizer : {"sgd", "adamw"}) {
    auto model = with_lora();
    const auto before = model.store();
    training::TrainingOptions options;
    options.optimizer = optimizer;
    options.learning_rate = 0.01;
    options.weight_decay = 0.1;
    test::fit(model, test::phantoms(32), options);
    const auto after = model.store();
    for (const auto& piece : model.space().pieces()) {
      const auto part = [&](const std::vector<float>& values) { return std::span(values).subspan(piece.offset, piece.size); };
      const bool moves = piece.name.ends_with("lora_up.weight") || piece.name.starts_with("fc.") || is_statistic(piece.role);
      EXPECT_EQ(std::ranges::equal(part(before), part(after)), !moves) << optimizer << ": " << piece.name;
      EXPECT_EQ(is_frozen(piece.role), !moves) << piece.name;
    }
  }
}

TEST(Lora, SurvivesAModelFile) {
  const preceptor::test::TempDir dir;
  auto model = with_lora();
  draw_upper_factors(model, 3);
  ASSERT_TRUE(models::save_model(dir / "m.safetensors", model));
  auto loaded = models::load_model(dir / "m.safetensors");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->model.store(), model.store());
  EXPECT_EQ(loaded->model.space().architecture_hash(), model.space().architecture_hash());
}

TEST(Lora, GoesWhereItIsAskedForOrSaysWhyNot) {
  auto model = lived_in({"resnet18", 0.25, "small"}, 2);
  auto some = add_lora(model, {2, {"layer1.", "layer2.0.conv1"}}, 1).value();
  EXPECT_EQ(some.spec().structure.lora.size(), 5u);
  const auto refuse = [](models::FlatModel& network, const LoraOptions& options, const std::string& reason) {
    const auto added = add_lora(network, options, 1);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, Code::kInvalid);
    EXPECT_THAT(added.error().message, HasSubstr(reason));
  };
  refuse(model, {0, {}}, "rank is 0");
  refuse(model, {4, {"layer9"}}, "begins with layer9");
  refuse(some, kRank4, "already");
}

}  // namespace
}  // namespace preceptor::compression
