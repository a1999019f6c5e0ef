#include <gmock/gmock.h>

#include <cmath>

#include "tests/training/grouped_model.h"

namespace preceptor::training {
namespace {

using namespace test;
using testing::HasSubstr;

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
  options.record_privacy = {.on = true, .clip_norm = 30, .noise_multiplier = 0.5, .clipping = "adaptive", .target_quantile = 0.5, .clip_rate = 0.4,
                            .randomness = "seeded"};
  auto samples = PerSampleGradients::create(model, *objective).value();
  const auto index = first(64);
  auto norms = std::get<0>(samples.add_clipped(batch_of(set, index), 64, 1).norms.sort());
  auto step = PrivateStep::create(model, *objective, options, 64).value();
  auto randomness = PrivacyRandomness::seeded(RandomStream(6, "noise"));
  for (int i = 0; i < 40; ++i)  // gradients are taken, but no step: the norms stay
    ASSERT_TRUE(step.gradients(index, [&](std::span<const std::size_t> some) { return make_batch(set, some); }, randomness));
  // The share below the bound has noise of 3.2 of 64, which a rate of 0.4 averages: within 20 % of the images.
  EXPECT_GT(step.clip_norm(), norms[19].item<double>());
  EXPECT_LT(step.clip_norm(), norms[45].item<double>());
}

TEST(PrivateTraining, ItLearnsToTellBrightFromDark) {
  auto set = noise(64);
  for (std::size_t i = 0; i < set.size(); ++i)
    for (std::size_t p = 0; p < set.image_bytes(); ++p) {
      auto& pixel = set.pixels[i * set.image_bytes() + p];
      pixel = std::uint8_t(pixel / 2 + (set.labels[i] ? 127 : 0));
    }
  auto model = grouped("test-twice");
  auto options = private_options();
  options.batch = 32;
  options.epochs = 20;
  options.learning_rate = 0.05;
  options.record_privacy.noise_multiplier = 0.1;
  std::vector<double> losses;
  const auto objective = make_cross_entropy(options, set);
  ASSERT_TRUE(train(model, set, options, *objective, 1, {}, [&](int, double loss) { return losses.push_back(loss), true; }));
  EXPECT_LT(losses.back(), 0.7 * losses.front());
}

}  // namespace
}  // namespace preceptor::training
