// What every registered network shows of its way to the logits.
#include "models/tap.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/stem.h"

namespace preceptor::models {
namespace {

TEST(FeatureTaps, ATapGivesItsArgumentWhetherAnyoneListensOrNot) {
  const auto map = torch::rand({2, 3, 4, 4});
  EXPECT_TRUE(tap(map).is_same(map));
  EXPECT_EQ(FeatureTaps::active(), nullptr);
  FeatureTaps taps;
  EXPECT_TRUE(tap(map).is_same(map));
  const auto features = taps.take();
  ASSERT_EQ(features.maps.size(), 1u);
  EXPECT_TRUE(features.maps[0].is_same(map));
  EXPECT_FALSE(features.pooled.defined());
}

TEST(FeatureTaps, ScopesNestAndTheInnermostListens) {
  FeatureTaps outer;
  tap(torch::zeros({1, 1, 2, 2}));
  {
    FeatureTaps inner;
    tap(torch::zeros({1, 5}));
    EXPECT_EQ(inner.take().pooled.size(1), 5);
  }
  tap(torch::zeros({1, 1, 3, 3}));
  const auto features = outer.take();
  EXPECT_EQ(features.maps.size(), 2u);
  EXPECT_FALSE(features.pooled.defined());
}

TEST(FeatureTaps, AnErrorInsideLeavesNoScopeBehind) {
  EXPECT_THROW(with_features([]() -> at::Tensor { throw std::runtime_error("no memory"); }), std::runtime_error);
  EXPECT_EQ(FeatureTaps::active(), nullptr);
}

TEST(FeatureTaps, TokensAreRecordedAsTheMapThatTheyCover) {
  const auto map = torch::rand({2, 5, 3, 3});  // [B, C, H, W]
  const auto grid = map.permute({0, 2, 3, 1});
  const auto rows = torch::cat({torch::full({2, 2, 5}, 7.0f), grid.flatten(1, 2)}, 1);  // two tokens before the image's
  FeatureTaps taps;
  tap_tokens(grid);
  tap_tokens(rows, 2);
  for (const auto& seen : taps.take().maps) EXPECT_TRUE(torch::equal(seen, map));
}

TEST(Features, WithoutAPooledEmbeddingTheCoarsestMapIsPooled) {
  Features features{{torch::rand({2, 3, 8, 8}), torch::rand({2, 6, 2, 2}), torch::rand({2, 3, 8, 8})}, {}};
  EXPECT_TRUE(torch::equal(features.embedding(), features.maps[1].mean({2, 3})));
  features.pooled = torch::rand({2, 9});
  EXPECT_TRUE(features.embedding().is_same(features.pooled));
}

class Taps : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kBatch = 3, kSize = 32;
  Taps() {
    const auto& sizes = (*zoo().find(GetParam()))->sizes;
    model.emplace(create_at_size(sizes.front(), {4, 1, kSize}).value());
    model->initialise(RandomStream(3, "init"));
    torch::manual_seed(5);
    images = torch::randn({kBatch, 1, kSize, kSize});
  }
  std::optional<FlatModel> model;
  at::Tensor images;
};

TEST_P(Taps, ShowTwoMapsOrMoreAndAnEmbedding) {
  for (const bool training : {true, false}) {
    model->network().train(training);
    const auto [logits, features] = with_features([&] { return model->forward(images); });
    ASSERT_GE(features.maps.size(), 2u);
    for (const auto& map : features.maps) {
      ASSERT_EQ(map.dim(), 4);
      EXPECT_EQ(map.size(0), kBatch);
      EXPECT_EQ(map.size(2), map.size(3)) << "of a square image";
      EXPECT_LE(map.size(2), kSize);
      EXPECT_TRUE(map.isfinite().all().item<bool>());
    }
    const auto embedding = features.embedding();
    ASSERT_EQ(embedding.dim(), 2);
    EXPECT_EQ(embedding.size(0), kBatch);
    EXPECT_GT(embedding.size(1), 1);
    if ((*zoo().find(GetParam()))->task == "classification") {
      EXPECT_TRUE(features.pooled.defined());
    }
  }
}

TEST_P(Taps, ChangeNoLogit) {
  torch::NoGradGuard no_grad;
  model->network().eval();
  const auto plain = model->forward(images);
  EXPECT_TRUE(torch::equal(with_features([&] { return model->forward(images); }).first, plain));
}

TEST_P(Taps, LetAGradientReachTheParameters) {
  model->network().train();
  const auto moved = [&](const at::Tensor& what) {
    model->gradients().zero_();
    what.square().sum().backward({}, /*retain_graph=*/true);
    return model->gradients().abs().max().item<double>() > 0;
  };
  const auto features = with_features([&] { return model->forward(images); }).second;
  for (const auto& map : features.maps) EXPECT_TRUE(moved(map));
  EXPECT_TRUE(moved(features.embedding()));
}

std::vector<std::string> published_models() {
  std::vector<std::string> names;
  for (const auto& name : zoo().names())
    if (!(*zoo().find(name))->sizes.empty()) names.push_back(name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Zoo, Taps, testing::ValuesIn(published_models()), [](const auto& param) { return param.param; });

}  // namespace
}  // namespace preceptor::models
