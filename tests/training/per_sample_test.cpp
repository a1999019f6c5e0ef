#include <gmock/gmock.h>

#include <cmath>

#include "tests/training/grouped_model.h"

namespace preceptor::training {
namespace {

using namespace test;

/// One backward pass for each image, and no other: [B, floats]. All go through one forward pass, so that what is compared is
/// not how rounding differs between batch sizes, which deep networks amplify.
at::Tensor naive(models::FlatModel& model, Objective& objective, const Batch& batch) {
  std::vector<at::Tensor> gradients;
  const auto logits = model.forward(batch.images);
  for (std::int64_t i = 0; i < batch.images.size(0); ++i) {
    model.gradients().zero_();
    objective.loss(one_of(batch, i), logits.narrow(0, i, 1)).backward({}, /*retain_graph=*/true);
    gradients.push_back(model.gradients().clone());
  }
  model.gradients().zero_();
  return torch::stack(gradients);
}

/// Both ways, with a bound in the midst of the norms: norms and sum must agree.
void compare(models::FlatModel& model, const data::Dataset& set, bool vectorised, std::size_t images = 6) {
  use_threads(1);
  const auto objective = make_supervised({}, set);
  auto samples = PerSampleGradients::create(model, *objective).value();
  const auto index = first(images);
  const auto batch = batch_of(set, index);
  const auto count = std::int64_t(images) - 2;  // the last are padding
  const auto each = naive(model, *objective, batch);
  const auto norms = each.to(torch::kFloat64).norm(2, {1}).to(torch::kFloat32);
  const double bound = norms.narrow(0, 0, count).median().item<double>();
  const auto factors = (bound / norms).clamp_max(1).narrow(0, 0, count);
  const auto sum = torch::mv(each.narrow(0, 0, count).t(), factors);
  const auto got = samples.add_clipped(batch, count, bound);
  EXPECT_EQ(samples.one_by_one(), !vectorised);
  const double tolerance = vectorised ? 1e-5 : 3e-3;  // image by image, the forward passes differ
  EXPECT_LT(error(got.norms, norms), tolerance);
  EXPECT_LT(error(model.gradients(), sum), tolerance);
  for (const auto& piece : model.space().pieces()) {  // none hides behind a larger one
    const auto of = [&](const at::Tensor& flat) { return flat.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)); };
    if (of(sum).norm().item<double>() > 1e-4 * sum.norm().item<double>()) {
      EXPECT_LT(error(of(model.gradients()), of(sum)), 20 * tolerance) << piece.name;
    }
  }
}

TEST(PerSample, EveryKindOfLayerGivesTheClippedSumOfOneByOne) {
  auto model = grouped("test-layers");
  compare(model, noise(8), true);
}

struct OfTheZoo {
  const char* name;
  double width;
  bool vectorised;
};
void PrintTo(const OfTheZoo& m, std::ostream* out) { *out << m.name; }

class Zoo : public testing::TestWithParam<OfTheZoo> {};
INSTANTIATE_TEST_SUITE_P(PerSample, Zoo,
                         testing::Values(OfTheZoo{"mobilenet_v2", 0.5, true}, OfTheZoo{"mobilenet_v3_small", 1, true},
                                         OfTheZoo{"shufflenet_v2", 0.5, true}, OfTheZoo{"efficientvit_b0", 1, true},
                                         OfTheZoo{"deit_tiny", 1, true}, OfTheZoo{"mambaout", 1, true},
                                         OfTheZoo{"vision_rwkv", 1, false}),
                         [](const auto& item) { return std::string(item.param.name); });

TEST_P(Zoo, GivesTheClippedSumOfOneByOne) {
  auto model = grouped(GetParam().name, 2, 32, GetParam().width);
  compare(model, noise(8, 1, 32), GetParam().vectorised);
}

TEST(PerSample, SegmentationGivesTheClippedSumOfOneByOne) {
  auto model = grouped("unext", 2, 32, 1);
  compare(model, test::blocks(8, 32), true);
}

/// Uses one weight twice, which no rule covers.
class Twice : public models::Model {
 public:
  explicit Twice(const models::TaskOptions& task)
      : in_(register_module("in", models::Linear(task.channels * task.image_size * task.image_size, 8))),
        again_(register_module("again", models::Linear(8, 8))),
        out_(register_module("out", models::Linear(8, task.classes))) {}
  torch::Tensor forward(torch::Tensor x) override { return out_(again_(torch::tanh(again_(in_(x.flatten(1)))))); }

 private:
  models::Linear in_, again_, out_;
};
const models::RegisterModel kTwice{"test-twice",
                                   {"CNN", "classification", "",
                                    [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                      return std::make_shared<Twice>(spec.task);
                                    }}};

TEST(PerSample, AWeightUsedTwiceGoesImageByImage) {
  auto model = grouped("test-twice");
  compare(model, noise(8), false);
}

/// Mixes each image with the one before it in the batch, out of sight of any rule.
class Mixing : public models::Model {
 public:
  explicit Mixing(const models::TaskOptions& task)
      : in_(register_module("in", models::Linear(task.channels * task.image_size * task.image_size, 8))),
        out_(register_module("out", models::Linear(8, task.classes))) {}
  torch::Tensor forward(torch::Tensor x) override { return out_(torch::tanh(in_(x.flatten(1) + x.flatten(1).roll(1, 0)))); }

 private:
  models::Linear in_, out_;
};
const models::RegisterModel kMixing{"test-mixing",
                                    {"CNN", "classification", "",
                                     [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                       return std::make_shared<Mixing>(spec.task);
                                     }}};

/// The second batch is what padding makes of a step that drew one image.
TEST(PerSample, ImagesThatBearOnEachOtherAreFoundByTheCheckAndGoOneByOne) {
  for (const auto& index : {first(8), std::vector<std::size_t>(8, 0)}) {
    auto model = grouped("test-mixing");
    const auto set = noise(8);
    const auto objective = make_cross_entropy({}, set);
    auto samples = PerSampleGradients::create(model, *objective).value();
    model.gradients().zero_();
    samples.add_clipped(make_batch(set, index), 8, 0.1);
    EXPECT_TRUE(samples.one_by_one());
    const auto sum = model.gradients().clone();
    model.gradients().zero_();
    samples.add_clipped_one_by_one(make_batch(set, index), 8, 0.1);
    EXPECT_TRUE(sum.equal(model.gradients()));
    EXPECT_LE(sum.norm().item<double>(), 8 * 0.1);
  }
}

/// So steep that rounding, which depends on the batch size, changes an image's gradient by percents: a deep network's kinks
/// in the small.
class Steep : public models::Model {
 public:
  explicit Steep(const models::TaskOptions& task)
      : in_(register_module("in", models::Linear(task.channels * task.image_size * task.image_size, 8))),
        out_(register_module("out", models::Linear(8, task.classes))) {}
  torch::Tensor forward(torch::Tensor x) override { return out_(torch::sin(1e6 * in_(x.flatten(1)))); }

 private:
  models::Linear in_, out_;
};
const models::RegisterModel kSteep{"test-steep",
                                   {"CNN", "classification", "",
                                    [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                      return std::make_shared<Steep>(spec.task);
                                    }}};

TEST(PerSample, WhatOnlyRoundingByBatchSizeMovesIsNoReasonToGoOneByOne) {
  use_threads(1);
  auto model = grouped("test-steep");
  const auto set = noise(8);
  const auto objective = make_cross_entropy({}, set);
  auto samples = PerSampleGradients::create(model, *objective).value();
  const auto index = first(8);
  const auto batch = make_batch(set, index);
  const auto norms = samples.add_clipped(batch, 8, 0.1).norms;
  EXPECT_FALSE(samples.one_by_one());
  const auto each = naive(model, *objective, batch).norm(2, {1});
  EXPECT_LT(error(norms, each), 1e-5);
  const auto alone = samples.add_clipped_one_by_one(batch, 8, 0.1).norms;
  EXPECT_GT(error(alone, each), 5e-3) << "rounding does not depend on the batch size here, so nothing was tested";
}

TEST(PerSample, OneMoreImageChangesTheSumByNoMoreThanTheBound) {
  for (const auto* name : {"test-layers", "mobilenet_v2"}) {
    auto model = grouped(name);
    const auto set = noise(9);
    const auto objective = make_cross_entropy({}, set);
    auto samples = PerSampleGradients::create(model, *objective).value();
    double largest = 0;
    for (const double bound : {0.01, 1.0, 1e6}) {
      const auto sum_of = [&](std::vector<std::size_t> index) {
        model.gradients().zero_();
        samples.add_clipped(batch_of(set, index), std::int64_t(index.size()), bound);
        return model.gradients().clone();
      };
      const auto without = sum_of(first(8));
      auto index = first(8);
      index.push_back(8);
      const double change = (sum_of(index) - without).norm().item<double>();
      EXPECT_LE(change, bound * (1 + 1e-5)) << name;
      largest = std::max(largest, change / bound);
    }
    EXPECT_GT(largest, 0.99) << "no bound was reached, so nothing was tested";
  }
}

}  // namespace
}  // namespace preceptor::training
