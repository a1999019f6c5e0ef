#include "training/private_training.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <numeric>

#include "models/structure.h"
#include "tests/training/made_masks.h"

namespace preceptor::training {
namespace {

using test::noise;
using testing::HasSubstr;

/// Every kind of layer that has a rule, once.
class Layers : public models::Model {
 public:
  explicit Layers(const models::TaskOptions& task) {
    using Conv = torch::nn::Conv2dOptions;
    const auto add = [&](const char* name, const Conv& options) { return register_module(name, models::Conv2d(options)); };
    stem_ = add("stem", Conv(task.channels, 12, 3).stride(2).padding(1));
    depthwise3_ = add("depthwise3", Conv(12, 12, 3).padding(1).groups(12).bias(false));
    depthwise5_ = add("depthwise5", Conv(12, 12, 5).padding(2).groups(12).stride(2));
    depthwise7_ = add("depthwise7", Conv(12, 12, 7).padding(3).groups(12));
    grouped_ = add("grouped", Conv(12, 24, 3).padding(1).groups(3));
    dilated_ = add("dilated", Conv(24, 24, 3).padding(2).dilation(2).groups(24));
    strided_ = add("strided", Conv(24, 20, 1).stride(2));
    point_ = add("point", Conv(20, 32, 1));
    norm_ = register_module("norm", torch::nn::GroupNorm(torch::nn::GroupNormOptions(4, 32)));
    token_ = register_parameter("token", torch::zeros({1, 1, 32}));
    positions_ = register_parameter("positions", torch::zeros({1, 17, 32}));
    scale_ = register_parameter("scale", torch::ones({32}));
    layer_norm_ = register_module("layer_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({32})));
    mix_ = register_module("mix", models::Linear(torch::nn::LinearOptions(32, 32)));
    const models::GroupedNorms scope(true);
    batch_ = register_module("batch", models::BatchNorm2d(12));
    head_ = register_module("head", models::Linear(torch::nn::LinearOptions(32, task.classes)));
  }
  torch::Tensor forward(torch::Tensor x) override {
    x = torch::relu(batch_(stem_(x)));
    x = depthwise7_(depthwise5_(depthwise3_(x)));
    x = norm_(point_(torch::silu(strided_(dilated_(grouped_(x))))));
    auto tokens = x.flatten(2).transpose(1, 2);
    tokens = torch::cat({token_.expand({x.size(0), 1, 32}), tokens}, 1) + positions_;
    tokens = tokens + scale_ * torch::gelu(mix_(layer_norm_(tokens)));
    return head_(tokens.select(1, 0) + tokens.mean(1));
  }

 private:
  models::Conv2d stem_{nullptr}, depthwise3_{nullptr}, depthwise5_{nullptr}, depthwise7_{nullptr}, grouped_{nullptr}, dilated_{nullptr},
      strided_{nullptr}, point_{nullptr};
  torch::nn::GroupNorm norm_{nullptr};
  models::BatchNorm2d batch_{nullptr};
  torch::Tensor token_, positions_, scale_;
  torch::nn::LayerNorm layer_norm_{nullptr};
  models::Linear mix_{nullptr}, head_{nullptr};
};
const models::RegisterModel kLayers{"test-layers",
                                    {"CNN", "classification", "",
                                     [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                       return std::make_shared<Layers>(spec.task);
                                     }}};

models::FlatModel grouped(const std::string& name, int classes = 2, int size = 28, double width = 0.5) {
  models::ModelSpec spec{{name, width, "small"}, {classes, 1, size}};
  spec.model.normalisation = "group";
  auto model = models::FlatModel::create(spec);
  EXPECT_TRUE(model) << model.error().message;
  model->initialise(RandomStream(1, "init"));
  // Scales and heads away from 0, so that every layer has a gradient.
  auto values = model->store();
  RandomStream random(2, "values");
  for (auto& value : values) value += 0.05f * float(random.normal());
  model->load(values);
  model->network().train();
  return std::move(*model);
}

Batch batch_of(const data::Dataset& set, const std::vector<std::size_t>& index) { return make_batch(set, index); }

std::vector<std::size_t> first(std::size_t count) {
  std::vector<std::size_t> index(count);
  std::iota(index.begin(), index.end(), std::size_t{0});
  return index;
}

double error(const at::Tensor& got, const at::Tensor& expected) { return ((got - expected).norm() / expected.norm()).item<double>(); }

/// Both ways, with a bound in the midst of the norms: norms, losses and sum must agree.
void compare(models::FlatModel& model, const data::Dataset& set, bool vectorised, std::size_t images = 8) {
  const auto objective = make_supervised({}, set);
  auto samples = PerSampleGradients::create(model, *objective).value();
  const auto index = first(images);
  const auto batch = batch_of(set, index);
  const auto count = std::int64_t(images) - 3;  // the last are padding
  model.gradients().zero_();
  const auto probe = samples.add_clipped_one_by_one(batch, count, 1).norms;
  const double bound = probe.narrow(0, 0, count).median().item<double>();
  model.gradients().zero_();
  const auto expected = samples.add_clipped_one_by_one(batch, count, bound);
  const auto sum = model.gradients().clone();
  model.gradients().zero_();
  const auto got = samples.add_clipped(batch, count, bound);
  EXPECT_EQ(samples.one_by_one(), !vectorised);
  EXPECT_LT(error(got.norms, expected.norms), 1e-5);
  EXPECT_LT(error(got.losses, expected.losses), 1e-5);
  EXPECT_LT(error(model.gradients(), sum), 1e-5);
  for (const auto& piece : model.space().pieces()) {  // none hides behind a larger one
    const auto of = [&](const at::Tensor& flat) { return flat.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)); };
    if (of(sum).norm().item<double>() > 1e-4 * sum.norm().item<double>()) {
      EXPECT_LT(error(of(model.gradients()), of(sum)), 2e-4) << piece.name;
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

TEST(PerSample, ImagesThatBearOnEachOtherAreFoundByTheCheckAndGoOneByOne) {
  auto model = grouped("test-mixing");
  compare(model, noise(8), false);
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

TEST(PrivateTraining, BatchNormIsRefusedWithTheWayOut) {
  auto model = test::made_model("mobilenet_v2");
  const auto set = noise(8);
  const auto objective = make_cross_entropy({}, set);
  TrainingOptions options;
  options.record_privacy.on = true;
  const auto done = train(model, set, options, *objective, 1);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("normalisation: group"));
}

TEST(PrivateTraining, WhatLooksAtImagesWithoutNoiseIsRefused) {
  const auto set = noise(8);
  auto model = grouped("test-layers");
  TrainingOptions options;
  options.record_privacy.on = true;
  options.class_weights = "balanced";
  const auto balanced = train(model, set, options, *make_cross_entropy(options, set), 1);
  ASSERT_FALSE(balanced);
  EXPECT_THAT(balanced.error().message, HasSubstr("class_weights"));

  options.class_weights = "none";
  struct Comparing : Objective {
    at::Tensor loss(const Batch&, const at::Tensor& logits) override { return logits.sum(); }
    bool by_image() const override { return false; }
  } comparing;
  EXPECT_FALSE(train(model, set, options, comparing, 1));

  models::ModelSpec spec{{"mobilenet_v2", 0.5, "small"}, {2, 1, 28}};
  spec.model.normalisation = "group";
  spec.structure.int8["features.0.0"] = "observed";
  auto rounding = models::FlatModel::create(spec).value();
  const auto refused = train(rounding, set, options, *make_cross_entropy(options, set), 1);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("rounds"));

  options.record_privacy.clipping = "adaptive";
  options.record_privacy.count_noise = 0.4;
  EXPECT_FALSE(train(model, set, options, *make_cross_entropy(options, set), 1)) << "0.4 is too little for a multiplier of 1";
}

// The bounds below are five standard deviations of each figure: a false alarm of 6e-7 each, with fixed seeds.
TEST(PrivateTraining, NoiseHasTheMomentsOfAGaussian) {
  constexpr std::size_t kCount = 1'000'003;
  constexpr double n = kCount;
  for (const bool secret : {false, true}) {
    auto randomness = secret ? PrivacyRandomness::system() : PrivacyRandomness::seeded(RandomStream(1, "noise"));
    std::vector<float> sum(kCount, 2.5f);
    ASSERT_TRUE(add_gaussian(sum, 0.5, randomness));
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0, before = 0;
    std::size_t beyond = 0;
    for (const auto value : sum) {
      const double z = (double(value) - 2.5) / 0.5;
      m1 += z, m2 += z * z, m3 += z * z * z, m4 += z * z * z * z, lag += z * before;
      before = z;
      beyond += std::abs(z) > 3;
    }
    EXPECT_NEAR(m1 / n, 0, 5 * std::sqrt(1 / n));
    EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2 / n));
    EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15 / n));
    EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96 / n));
    EXPECT_NEAR(lag / n, 0, 5 * std::sqrt(1 / n));
    EXPECT_NEAR(double(beyond) / n, 0.0026998, 5 * std::sqrt(0.0027 / n));
  }
}

TEST(PrivateTraining, NoiseFollowsTheNormalDistribution) {
  constexpr std::size_t kCount = 200'000;
  auto randomness = PrivacyRandomness::seeded(RandomStream(2, "noise"));
  std::vector<float> sum(kCount);
  ASSERT_TRUE(add_gaussian(sum, 1, randomness));
  std::ranges::sort(sum);
  double distance = 0;  // Kolmogorov-Smirnov; P(√n D > 2.73) = 2 e^(−2 · 2.73²) = 7e-7
  for (std::size_t i = 0; i < kCount; ++i) {
    const double expected = 0.5 * std::erfc(-double(sum[i]) / std::sqrt(2.0));
    distance = std::max({distance, std::abs(double(i) / kCount - expected), std::abs(double(i + 1) / kCount - expected)});
  }
  EXPECT_LT(std::sqrt(double(kCount)) * distance, 2.73);
}

TEST(PrivateTraining, SumsWithNoiseLieOnItsGrid) {
  auto randomness = PrivacyRandomness::seeded(RandomStream(3, "noise"));
  std::vector<float> sum{0.1f, -0.3f, 1e-9f, 0.0f, 0.01f};  // float has 24 bits, so values below 1 / 2 show every step of 2^-24
  ASSERT_TRUE(add_gaussian(sum, 1, randomness));
  for (const double value : sum) EXPECT_EQ(value / kNoiseGrid, std::nearbyint(value / kNoiseGrid));
  std::vector<float> plain{1, 2};
  ASSERT_TRUE(add_gaussian(plain, 0, randomness));
  EXPECT_EQ(plain, (std::vector<float>{1, 2}));
}

TEST(PrivateTraining, SampleTakesEachImageByItselfAtTheRate) {
  auto randomness = PrivacyRandomness::seeded(RandomStream(4, "sampling"));
  constexpr double kRate = 0.3;
  constexpr int kDraws = 4000;
  constexpr std::size_t kImages = 50;
  std::vector<int> taken(kImages);
  double sizes = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const auto drawn = poisson_sample(kImages, kRate, randomness).value();
    EXPECT_TRUE(std::ranges::is_sorted(drawn));
    for (const auto image : drawn) ++taken[image];
    sizes += double(drawn.size());
    squares += double(drawn.size()) * double(drawn.size());
  }
  const double variance = kImages * kRate * (1 - kRate), mean = sizes / kDraws;
  EXPECT_NEAR(mean, kImages * kRate, 5 * std::sqrt(variance / kDraws));
  EXPECT_NEAR(squares / kDraws - mean * mean, variance, 5 * variance * std::sqrt(2.1 / kDraws));  // a binomial's size varies
  for (const auto count : taken) EXPECT_NEAR(count, kDraws * kRate, 5.7 * std::sqrt(kDraws * kRate * (1 - kRate)));  // 50 at once
  EXPECT_TRUE(poisson_sample(10, 0, randomness)->empty());
  EXPECT_EQ(poisson_sample(10, 1, randomness)->size(), 10u);
}

std::vector<float> trained(const TrainingOptions& options, const data::Dataset& set, std::uint64_t seed, Trained* out = nullptr) {
  auto model = grouped("test-layers");
  const auto objective = make_cross_entropy(options, set);
  const auto done = train(model, set, options, *objective, seed);
  EXPECT_TRUE(done) << done.error().message;
  if (out && done) *out = *done;
  return model.store();
}

TrainingOptions private_options() {
  TrainingOptions options;
  options.batch = 8;
  options.epochs = 2;
  options.record_privacy.on = true;
  options.record_privacy.randomness = "seeded";
  return options;
}

TEST(PrivateTraining, SeededRunsRepeatAndSecretOnesDoNot) {
  const auto set = noise(24);
  auto options = private_options();
  const auto once = trained(options, set, 5);
  EXPECT_EQ(trained(options, set, 5), once);
  EXPECT_NE(trained(options, set, 6), once);
  options.record_privacy.randomness = "system";
  EXPECT_NE(trained(options, set, 5), trained(options, set, 5));
}

TEST(PrivateTraining, MicrobatchesChangeRoundingOnly) {
  const auto set = noise(24);
  auto options = private_options();
  const auto at_once = trained(options, set, 5);
  options.record_privacy.microbatch = 3;
  const auto pieces = trained(options, set, 5);
  EXPECT_NE(pieces, at_once);
  for (std::size_t i = 0; i < pieces.size(); ++i) ASSERT_NEAR(pieces[i], at_once[i], 1e-3);
}

TEST(PrivateTraining, StepsAndRateAreThoseThatTheAccountantIsTold) {
  const auto set = noise(26);
  auto options = private_options();
  Trained done;
  trained(options, set, 1, &done);
  const auto run = private_run(options, set.size());
  EXPECT_EQ(done.steps, run.steps);
  EXPECT_EQ(run.steps, 6u);  // 26 / 8 is about three
  EXPECT_DOUBLE_EQ(run.sampling_rate, 8.0 / 26);
  EXPECT_EQ(run.noise_multiplier, 1);
  EXPECT_EQ(done.loss, 0) << "a loss without noise must not leave the training";
  options.batch = 100;
  EXPECT_EQ(private_run(options, set.size()).sampling_rate, 1);
}

TEST(PrivateTraining, AStepWithoutImagesIsNoiseOverTheExpectedBatch) {
  auto model = grouped("test-layers");
  const auto set = noise(8);
  const auto objective = make_cross_entropy({}, set);
  auto options = private_options();
  options.record_privacy.clip_norm = 3;
  options.record_privacy.noise_multiplier = 2;
  auto step = PrivateStep::create(model, *objective, options, 4).value();
  auto randomness = PrivacyRandomness::seeded(RandomStream(5, "noise"));
  const auto loss = step.gradients({}, [&](std::span<const std::size_t> index) { return make_batch(set, index); }, randomness);
  ASSERT_TRUE(loss);
  EXPECT_EQ(*loss, 0);
  const double n = double(model.space().trainable());
  EXPECT_NEAR(model.gradients().square().sum().item<double>() / n, 1.5 * 1.5, 1.5 * 1.5 * 5 * std::sqrt(2 / n));
}

TEST(PrivateTraining, WithoutNoiseItFollowsTheClippedMean) {
  auto model = grouped("test-layers");
  const auto set = noise(8);
  const auto objective = make_cross_entropy({}, set);
  auto options = private_options();
  options.record_privacy.noise_multiplier = 0;
  options.record_privacy.clip_norm = 1e4;  // nothing is clipped
  auto step = PrivateStep::create(model, *objective, options, 8).value();
  auto randomness = PrivacyRandomness::seeded(RandomStream(5, "noise"));
  ASSERT_TRUE(step.gradients(first(8), [&](std::span<const std::size_t> index) { return make_batch(set, index); }, randomness));
  const auto got = model.gradients().clone();
  model.gradients().zero_();
  const auto batch = batch_of(set, first(8));
  objective->loss(batch, model.forward(batch.images)).backward();
  EXPECT_LT(error(got, model.gradients()), 1e-5);
}

TEST(PrivateTraining, AdaptiveClippingFindsTheQuantile) {
  auto model = grouped("test-layers");
  const auto set = noise(64);
  const auto objective = make_cross_entropy({}, set);
  auto options = private_options();
  options.batch = 64;
  options.record_privacy = {.on = true, .clip_norm = 1000, .noise_multiplier = 0.5, .clipping = "adaptive", .target_quantile = 0.5, .clip_rate = 0.4,
                            .randomness = "seeded"};
  auto samples = PerSampleGradients::create(model, *objective).value();
  const auto index = first(64);
  auto norms = std::get<0>(samples.add_clipped(batch_of(set, index), 64, 1).norms.sort());
  auto step = PrivateStep::create(model, *objective, options, 64).value();
  auto randomness = PrivacyRandomness::seeded(RandomStream(6, "noise"));
  for (int i = 0; i < 80; ++i)  // gradients are taken, but no step: the norms stay
    ASSERT_TRUE(step.gradients(index, [&](std::span<const std::size_t> some) { return make_batch(set, some); }, randomness));
  // The share below the bound has noise of 3.2 of 64, which a rate of 0.4 averages: within 20 % of the images.
  EXPECT_GT(step.clip_norm(), norms[19].item<double>());
  EXPECT_LT(step.clip_norm(), norms[45].item<double>());
}

TEST(PrivateTraining, ItLearnsWhatPhantomsShow) {
  const auto set = test::phantoms(96);
  auto model = grouped("mobilenet_v2");
  auto options = private_options();
  options.batch = 24;
  options.epochs = 6;
  options.learning_rate = 0.1;
  options.record_privacy.noise_multiplier = 0.5;
  std::vector<double> losses;
  const auto objective = make_cross_entropy(options, set);
  ASSERT_TRUE(train(model, set, options, *objective, 1, {}, [&](int, double loss) { return losses.push_back(loss), true; }));
  EXPECT_LT(losses.back(), 0.7 * losses.front());
}

}  // namespace
}  // namespace preceptor::training
