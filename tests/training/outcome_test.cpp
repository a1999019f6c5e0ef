#include "training/outcome.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "tests/training/made_masks.h"

namespace preceptor::training {
namespace {

using test::blocks;
using test::made_model;

/// Logits of "brighter than the middle": right at every pixel of blocks().
at::Tensor bright(const at::Tensor& images) { return torch::cat({-images, images}, 1); }

/// Nothing is ever there.
at::Tensor blind(const at::Tensor& images) { return torch::cat({torch::ones_like(images), torch::zeros_like(images)}, 1); }

/// Finds only what is in the left half.
at::Tensor half_blind(const at::Tensor& images) {
  auto logits = bright(images).clone();
  logits.narrow(3, images.size(3) / 2, images.size(3) / 2).copy_(blind(images).narrow(3, 0, images.size(3) / 2));
  return logits;
}

Outcome scored(std::vector<SegmentationScore> scores) { return {{}, {}, 2, std::move(scores)}; }

TEST(OutcomeOfMasks, IsTheScoreOfEachImageAtItsLikeliestClasses) {
  const auto set = blocks(9);
  const auto perfect = outcome_of(bright, set);
  ASSERT_EQ(perfect.scores.size(), 9u);
  EXPECT_EQ(perfect.classes, 2u);
  EXPECT_TRUE(perfect.probabilities.empty());
  for (const auto& score : perfect.scores) {
    EXPECT_EQ(score.dice, 1);
    EXPECT_EQ(score.iou, 1);
    EXPECT_EQ(score.hd95, 0);
  }
  for (const auto& score : outcome_of(blind, set).scores) EXPECT_EQ(score.dice, 0);
  const auto half = outcome_of(half_blind, set);
  for (std::size_t i = 0; i < set.size(); ++i) {
    double all = 0, left = 0;
    for (std::size_t p = 0; p < set.mask_bytes(); ++p) {
      all += set.mask(i)[p];
      left += p % 16 < 8 ? set.mask(i)[p] : 0;
    }
    EXPECT_DOUBLE_EQ(half.scores[i].dice, 2 * left / (all + left)) << i;
    EXPECT_DOUBLE_EQ(half.scores[i].iou, left / all) << i;
  }
}

TEST(OutcomeOfMasks, DoesNotDependOnTheBatchNorChangeTheModel) {
  const auto set = blocks(10);
  auto model = made_model("test-pixelwise", 2, 3, 1, 16);
  const auto before = model.store();
  const auto once = outcome_of(model, set, 10), pieces = outcome_of(model, set, 3);
  ASSERT_EQ(pieces.scores.size(), 10u);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(once.scores[i].dice, pieces.scores[i].dice);
  EXPECT_EQ(model.store(), before);
}

TEST(OutcomeOfMasks, WithoutImagesTellsNothing) {
  const auto set = blocks(4);
  const auto none = outcome_of(bright, set.like());
  const auto metrics = measure(none, 1);
  EXPECT_EQ(metrics.images, 0u);
  EXPECT_FALSE(metrics.dice || metrics.iou || metrics.hd95 || metrics.auc || metrics.accuracy);
  EXPECT_FALSE(compare(none, none, 1));
  EXPECT_EQ(headline(none), 0);
}

TEST(OutcomeOfMasks, IsMeasuredByMeansOverImagesWithTheirIntervals) {
  const auto outcome = scored({{0.9, 0.8, 2.0}, {0.5, 0.3, 10.0}, {1, 1, std::nullopt}, {0.4, 0.3, 6.0}});
  const auto metrics = measure(outcome, 1);
  EXPECT_EQ(metrics.images, 4u);
  ASSERT_TRUE(metrics.dice && metrics.iou && metrics.hd95);
  EXPECT_DOUBLE_EQ(metrics.dice->value, 0.7);
  EXPECT_DOUBLE_EQ(metrics.iou->value, 0.6);
  EXPECT_DOUBLE_EQ(metrics.hd95->value, 6) << "of the three images that have one";
  for (const auto& e : {*metrics.dice, *metrics.iou, *metrics.hd95}) {
    EXPECT_LT(e.low, e.value);
    EXPECT_GT(e.high, e.value);
  }
  EXPECT_GE(metrics.dice->low, 0.4);
  EXPECT_LE(metrics.dice->high, 1);
  EXPECT_FALSE(metrics.auc || metrics.accuracy || metrics.sensitivity || metrics.specificity || metrics.ece);
  EXPECT_DOUBLE_EQ(headline(outcome), 0.7);
  EXPECT_EQ(measure(outcome, 1).dice->low, metrics.dice->low) << "the same seed, the same interval";
}

TEST(OutcomeOfMasks, OfEqualImagesHasAnIntervalOfOnePoint) {
  const auto metrics = measure(scored(std::vector<SegmentationScore>(5, {0.25, 0.2, std::nullopt})), 1);
  EXPECT_EQ(metrics.dice->low, 0.25);
  EXPECT_EQ(metrics.dice->high, 0.25);
  EXPECT_FALSE(metrics.hd95) << "defined on no image";
}

TEST(OutcomeOfMasks, APairedTestFindsWhatIsThereAndNothingElse) {
  const auto set = blocks(40);
  const auto good = outcome_of(bright, set), bad = outcome_of(half_blind, set);
  const auto better = compare(bad, good, 1), worse = compare(good, bad, 1), same = compare(bad, bad, 1);
  ASSERT_TRUE(better && worse && same);
  EXPECT_EQ(better->metric, "dice");
  EXPECT_DOUBLE_EQ(better->difference.value, 1 - headline(bad));
  EXPECT_GT(better->difference.low, 0);
  EXPECT_LT(better->p_value, 0.01);
  EXPECT_DOUBLE_EQ(worse->difference.value, -better->difference.value);
  EXPECT_LT(worse->p_value, 0.01);
  EXPECT_EQ(same->difference.value, 0);
  EXPECT_EQ(same->p_value, 1);
  // By turns 0.1 better and worse: a mean difference of 0, which a test of 5 % must not call one.
  std::vector<SegmentationScore> a, b;
  for (int i = 0; i < 40; ++i) {
    a.push_back({0.8, 0.7, 1.0});
    b.push_back({i % 2 ? 0.9 : 0.7, 0.7, 1.0});
  }
  EXPECT_GT(compare(scored(a), scored(b), 1)->p_value, 0.5);
}

}  // namespace
}  // namespace preceptor::training
