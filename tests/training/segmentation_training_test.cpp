// What training makes of masks: the loss, the check of the task, the loop.
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "tests/training/made_masks.h"
#include "training/outcome.h"

namespace preceptor::training {
namespace {

using test::blocks;
using test::made_model;
using testing::HasSubstr;

using Index = std::vector<std::size_t>;

/// Two images of 2 × 2 with these masks, of three classes.
data::Dataset masked(std::vector<std::uint8_t> masks) {
  data::Dataset set{2, 2, 1, {"background", "a", "b"}, std::vector<std::uint8_t>(8, 100), {0, 0}, std::move(masks), true};
  return set;
}

double loss_of(Objective& objective, const data::Dataset& set, const at::Tensor& logits) {
  return objective.loss(make_batch(set, Index{0, 1}), logits).item<double>();
}

/// Its definition in plain loops: logits [image][class][pixel], weights of classes.
double by_hand(const at::Tensor& logits, const data::Dataset& set, const std::vector<double>& weights) {
  const auto classes = std::size_t(logits.size(1));
  std::vector<double> overlap(classes), told(classes), there(classes);
  double sum = 0, all = 0;
  for (std::size_t i = 0; i < 2; ++i)
    for (std::size_t p = 0; p < 4; ++p) {
      const auto pixels = logits[std::int64_t(i)].flatten(1);
      const auto at = [&](std::size_t c) { return pixels[std::int64_t(c)][std::int64_t(p)].item<double>(); };
      const std::size_t truth = set.mask(i)[p];
      double total = 0;
      for (std::size_t c = 0; c < classes; ++c) total += std::exp(at(c));
      for (std::size_t c = 0; c < classes; ++c) {
        const double share = std::exp(at(c)) / total;
        told[c] += share;
        if (c == truth) overlap[c] += share, there[c] += 1;
      }
      sum -= weights[truth] * (at(truth) - std::log(total));
      all += weights[truth];
    }
  double dice = 0;
  for (std::size_t c = 1; c < classes; ++c) dice += (2 * overlap[c] + 1) / (told[c] + there[c] + 1) / double(classes - 1);
  return sum / all + 1 - dice;
}

TEST(DiceCrossEntropy, OfAnUndecidedNetworkIsLnTwoAndAHalf) {
  // Every share is ½: cross-entropy ln 2. One pixel of each four is foreground: Dice (2·1 + 1) / (4 + 2 + 1).
  auto set = masked({1, 0, 0, 0, 0, 0, 1, 0});
  set.classes.pop_back();
  EXPECT_NEAR(loss_of(*make_dice_cross_entropy({}, set), set, torch::zeros({2, 2, 2, 2})), std::log(2) + 1 - 3.0 / 7, 1e-6);
}

TEST(DiceCrossEntropy, IsThatOfItsDefinition) {
  const auto set = masked({0, 1, 2, 0, 0, 0, 1, 0});
  torch::manual_seed(1);
  const auto logits = torch::randn({2, 3, 2, 2});
  EXPECT_NEAR(loss_of(*make_dice_cross_entropy({}, set), set, logits), by_hand(logits, set, {1, 1, 1}), 1e-5);
  TrainingOptions balanced;
  balanced.class_weights = "balanced";  // of 8 pixels, 5 are background, 2 of a, 1 of b
  const auto weighted = by_hand(logits, set, {8 / 15.0, 8 / 6.0, 8 / 3.0});
  EXPECT_NEAR(loss_of(*make_dice_cross_entropy(balanced, set), set, logits), weighted, 1e-5);
  const auto as_networks_give_it = logits.contiguous(at::MemoryFormat::ChannelsLast);
  EXPECT_NEAR(loss_of(*make_dice_cross_entropy(balanced, set), set, as_networks_give_it), weighted, 1e-5);
}

TEST(DiceCrossEntropy, IsNearZeroWhereAllIsRightEvenWithoutForeground) {
  for (const auto& masks : {std::vector<std::uint8_t>{0, 1, 2, 0, 0, 0, 1, 0}, std::vector<std::uint8_t>(8, 0)}) {
    const auto set = masked(masks);
    const auto sure = 30 * torch::one_hot(make_batch(set, Index{0, 1}).labels, 3).permute({0, 3, 1, 2}).to(torch::kFloat32);
    const auto loss = loss_of(*make_dice_cross_entropy({}, set), set, sure);
    EXPECT_NEAR(loss, 0, 1e-5);
    EXPECT_TRUE(std::isfinite(loss_of(*make_dice_cross_entropy({}, set), set, -sure)));
  }
}

TEST(Supervised, IsWhatTheDataAskFor) {
  const auto set = blocks(4);
  const auto batch = make_batch(set, Index{0, 1, 2});
  const auto logits = torch::cat({-batch.images, batch.images}, 1);
  const auto loss = [](Objective& objective, const Batch& of, const at::Tensor& told) {
    return objective.loss(of, told).item<double>();
  };
  EXPECT_EQ(loss(*make_supervised({}, set), batch, logits), loss(*make_dice_cross_entropy({}, set), batch, logits));
  const auto plain = test::noise(4);
  const auto rows = make_batch(plain, Index{0, 1, 2});
  torch::manual_seed(1);
  const auto scores = torch::randn({3, 2});
  EXPECT_EQ(loss(*make_supervised({}, plain), rows, scores), loss(*make_cross_entropy({}, plain), rows, scores));
}

TEST(CheckTask, RefusesANetworkForTheOtherTaskAndNamesBoth) {
  const auto masks = blocks(2), images = test::noise(2);
  EXPECT_TRUE(check_task({"unext"}, masks));
  EXPECT_TRUE(check_task({"shufflenet_v2"}, images));
  const auto classifier = check_task({"shufflenet_v2"}, masks);
  ASSERT_FALSE(classifier);
  EXPECT_EQ(classifier.error().code, Code::kInvalid);
  EXPECT_EQ(classifier.error().message,
            "shufflenet_v2 is for classification, the data are for segmentation; `preceptor models --task segmentation` lists "
            "what fits");
  const auto segmenter = check_task({"unext"}, images);
  ASSERT_FALSE(segmenter);
  EXPECT_THAT(segmenter.error().message, HasSubstr("unext is for segmentation, the data are for classification"));
  EXPECT_FALSE(check_task({"no such network"}, masks));
}

TEST(SegmentationTraining, LearnsWhereTheBrightPixelsAre) {
  const auto set = blocks(48), unseen = blocks(16, 16, 2, 2);
  const auto run = [&] {
    auto model = made_model("test-pixelwise", 2, 1, 1, 16);
    TrainingOptions options;
    options.epochs = 12;
    options.batch = 8;
    options.learning_rate = 0.5;
    options.augment = {.shift = 2, .rotate = 20, .flip = true};
    const auto objective = make_supervised(options, set);
    std::vector<double> losses;
    const auto note = [&](int, double loss) { return losses.push_back(loss), true; };
    const auto done = train(model, set, options, *objective, 1, {}, note);
    EXPECT_TRUE(done) << done.error().message;
    EXPECT_LT(losses.back(), 0.5 * losses.front());
    EXPECT_GT(headline(outcome_of(model, unseen)), 0.95);
    return model_hash(model.store());
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace preceptor::training
