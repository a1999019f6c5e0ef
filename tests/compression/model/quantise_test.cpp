#include "compression/model/quantise.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "compression/model/calibration.h"
#include "compression/model/repair.h"
#include "compression/model/restructure.h"
#include "tests/compression/model/made_networks.h"
#include "tests/support/temp_dir.h"

namespace preceptor::compression {
namespace {

using test::difference;
using test::lived_in;
using test::phantoms;
using testing::HasSubstr;

TEST(InputHistogram, BoundsAreExtremesOrLeaveTheTailsOut) {
  torch::manual_seed(1);
  const auto values = torch::randn({100000});
  values[0] = 100;
  InputHistogram histogram;
  for (const auto& part : values.chunk(4)) histogram.see_extremes(part);
  for (const auto& part : values.chunk(4)) histogram.count(part);
  EXPECT_EQ(histogram.extremes().second, 100);
  const auto [low, high] = histogram.percentile(99.9);  // ±3.09 of a normal distribution, bins of 0.05
  EXPECT_NEAR(low, -3.09, 0.15);
  EXPECT_NEAR(high, 3.09, 0.15);
  EXPECT_LT(histogram.least_squares().second, 100) << "one value far out is not worth a coarse step for all";
  EXPECT_EQ(histogram.percentile(100), histogram.extremes());
}

TEST(InputHistogram, ZeroIsAlwaysWithin) {
  InputHistogram histogram;
  const auto values = torch::full({100}, 5.0) + torch::rand({100});
  histogram.see_extremes(values);
  histogram.count(values);
  EXPECT_EQ(histogram.extremes().first, 0);
  EXPECT_EQ(histogram.percentile(99.99).first, 0);
  EXPECT_EQ(histogram.least_squares().first, 0);
  EXPECT_EQ(InputHistogram().least_squares(), (InputHistogram::Bounds{0, 0}));
}

TEST(Restructure, FusingBranchesKeepsTheLogits) {
  auto model = lived_in({"mobileone", 1, "small", "s1"});
  auto one = fused(model);
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_TRUE(one->spec().structure.fused);
  EXPECT_LT(one->space().size(), model.space().size());
  EXPECT_LT(difference(model, *one), 1e-4);
  auto twice = fused(*one).value();
  EXPECT_EQ(twice.store(), one->store());
}

TEST(Repair, EqualisationKeepsTheLogitsAndEvensTheRanges) {
  auto model = lived_in({"resnet18", 0.25, "small"});
  auto tensors = tensors_of(model);
  {  // one channel that dwarfs the others, as depthwise networks have
    torch::NoGradGuard no_grad;
    tensors.at("layer1.0.bn1.weight")[0].mul_(50);
  }
  auto equal = restructured(model, {}).value();
  EXPECT_EQ(equalise(equal).value(), 8) << "the first convolution of each block to its second";
  EXPECT_LT(difference(model, equal), 1e-4);
  EXPECT_NE(equal.store(), model.store());
  const auto spread = [](models::FlatModel& network) {
    const auto range = tensors_of(network).at("layer1.0.conv2.weight").abs().amax({0, 2, 3});
    return (range.max() / range.min()).item<double>();
  };
  EXPECT_GT(spread(equal), spread(model)) << "the second takes half of the factor over";
  auto bounded = lived_in({"mobilenet_v2", 0.35, "small"});
  auto untouched = restructured(bounded, {}).value();
  EXPECT_EQ(equalise(bounded).value(), 1) << "ReLU6, in every block, bends at another place when it is scaled; only between the "
                                             "last block's linear projection and the last convolution is there none, and no sum";
  EXPECT_LT(difference(untouched, bounded), 1e-4);
}

TEST(Repair, BiasCorrectionMovesTheMeansOfAllChannelsBack) {
  auto model = lived_in({"resnet18", 0.25, "small"});
  QuantiseOptions options;
  options.bias_correction = false;
  options.budget = 1000;
  auto done = quantise(model, phantoms(64, 3), options).value();
  auto rounded_tensors = tensors_of(done.model);
  {  // a rounding error that is the same everywhere
    torch::NoGradGuard no_grad;
    rounded_tensors.at("layer1.0.conv1.weight").add_(0.02);
    rounded_tensors.at("fc.weight").add_(0.02);
  }
  const auto images = test::some_images(32);
  const auto error = [&] { return (test::logits(done.model, images).mean(0) - test::logits(model, images).mean(0)).abs().max().item<double>(); };
  const double before = error();
  ASSERT_TRUE(correct_bias(done.model, model, images));
  EXPECT_LT(error(), 0.05 * before);
}

training::TrainingOptions recipe() {
  training::TrainingOptions options;
  options.optimizer = "adamw";
  options.learning_rate = 0.003;
  options.epochs = 12;
  options.batch = 16;
  return options;
}

data::Dataset training_images() { return test::dark_and_light(160); }

/// ShuffleNetV2 that tells dark from light; trained once.
models::FlatModel trained_network() {
  static const auto values = [] {
    auto model = training::test::made_model("shufflenet_v2");
    test::fit(model, training_images(), recipe());
    return model.store();
  }();
  auto model = training::test::made_model("shufflenet_v2");
  model.load(values);
  return model;
}

TEST(Quantise, KeepsTheAccuracyOfASmallNetwork) {
  const auto images = training_images();  // rounding has no part in how well it generalises
  auto model = trained_network();
  const double exact = test::accuracy(model, images);
  EXPECT_GT(exact, 0.8);
  for (const std::string calibration : {"minmax", "percentile", "mse"}) {
    SCOPED_TRACE(calibration);
    QuantiseOptions options;
    options.calibration = calibration;
    options.images = 32;
    auto done = quantise(model, images, options);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_GE(test::accuracy(done->model, images), exact - 0.02);
    EXPECT_GT(done->model.spec().structure.int8.size(), done->layers.size() / 2);
    EXPECT_LE(done->error, options.budget * 1.000001);
  }
}

TEST(Quantise, LeavesTheMostSensitiveLayersInFloatForItsBudget) {
  auto model = lived_in({"resnet18", 0.25, "small"});
  const auto set = phantoms(16, 3);
  QuantiseOptions options;
  options.bias_correction = false;
  options.budget = 1000;
  const auto all = quantise(model, set, options).value();
  EXPECT_EQ(all.model.spec().structure.int8.size(), all.layers.size());
  EXPECT_EQ(all.layers.size(), 21u);
  EXPECT_GT(all.error, 0);
  options.budget = all.error * 0.7;
  const auto some = quantise(model, set, options).value();
  EXPECT_LE(some.error, options.budget * 1.000001);
  EXPECT_LT(some.model.spec().structure.int8.size(), some.layers.size());
  EXPECT_FALSE(some.layers.front().int8);
  EXPECT_TRUE(some.layers.back().int8);
  EXPECT_TRUE(std::ranges::is_sorted(some.layers, std::greater(), &QuantisedLayer::error));
  options.budget = 0;
  const auto none = quantise(model, set, options).value();
  EXPECT_TRUE(none.model.spec().structure.int8.empty());
  EXPECT_EQ(none.error, 0);
  options.budget = 1000;
  options.keep = {"layer1.", "fc"};
  const auto kept = quantise(model, set, options).value();
  for (const auto& [layer, how] : kept.model.spec().structure.int8)
    EXPECT_FALSE(layer.starts_with("layer1.") || layer == "fc") << layer;
}

TEST(Quantise, GivesAFileOfAboutAQuarter) {
  const preceptor::test::TempDir dir;
  auto model = lived_in({"resnet18", 0.5, "small"});
  QuantiseOptions options;
  options.budget = 1000;
  auto done = quantise(model, phantoms(16, 3), options).value();
  ASSERT_TRUE(models::save_model(dir / "float.safetensors", model));
  ASSERT_TRUE(models::save_model(dir / "int8.safetensors", done.model));
  const auto size = [&](const char* name) { return double(std::filesystem::file_size(dir / name)); };
  EXPECT_LT(size("int8.safetensors") / size("float.safetensors"), 0.27);
  auto loaded = models::load_model(dir / "int8.safetensors");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->model.store(), done.model.store()) << "its weights are on their grid already";
}

TEST(Quantise, OfANetworkWithBranchesFusesItFirst) {
  auto model = lived_in({"mobileone", 1, "small", "s1"});
  QuantiseOptions options;
  options.images = 2;
  options.budget = 1000;
  const auto done = quantise(model, phantoms(16, 3), options);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_TRUE(done->model.spec().structure.fused);
  EXPECT_GT(done->model.spec().structure.int8.size(), 40u);
}

TEST(Quantise, FineTuningKeepsTheAccuracyWhenAllLayersRound) {
  auto model = trained_network();
  const auto train = training_images();
  const double exact = test::accuracy(model, train);
  EXPECT_GT(exact, 0.8);
  for (const std::string rounding : {"observed", "learned"}) {
    SCOPED_TRACE(rounding);
    QuantiseOptions options;
    options.rounding = rounding;
    options.images = 16;
    options.budget = 1000;
    auto done = quantise(model, train, options).value();
    auto fine = recipe();
    fine.learning_rate = 0.0003;
    fine.epochs = 3;
    fine.freeze_statistics = 0.5;
    const auto before = done.model.store();
    test::fit(done.model, train, fine);
    EXPECT_NE(done.model.store(), before);
    EXPECT_GE(test::accuracy(done.model, train), exact - 0.02);
  }
}

TEST(Quantise, RefusesWhatItCannotDo) {
  auto model = lived_in({"resnet18", 0.25, "small"});
  const auto refuse = [](models::FlatModel& network, const data::Dataset& set, const std::string& reason) {
    const auto done = quantise(network, set, {});
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::kInvalid);
    EXPECT_THAT(done.error().message, HasSubstr(reason));
  };
  refuse(model, phantoms(16).like(), "no image");
  refuse(model, phantoms(16, 3, 0, 3), "3");
  models::StructureOptions additions, integers;
  additions.lora = {{"layer1.0.conv1", "2"}};
  integers.int8 = {{"fc", "observed"}};
  auto lora = restructured(model, additions).value();
  refuse(lora, phantoms(16, 3), "merge them first");
  auto rounding = restructured(model, integers).value();
  refuse(rounding, phantoms(16, 3), "quantised already");
}

}  // namespace
}  // namespace preceptor::compression
