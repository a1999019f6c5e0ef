#include "training/contract.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "tests/support/temp_dir.h"
#include "tests/training/made.h"

namespace preceptor::training {
namespace {

using testing::HasSubstr;

TEST(Contract, TemperatureUndoesAScalingOfTheLogits) {
  // Labels drawn from the softmax of the logits are calibrated at T = 1, and so at T = 3 when these are tripled.
  RandomStream random(1, "labels");
  std::vector<float> logits, tripled;
  std::vector<std::int32_t> labels;
  for (int i = 0; i < 20000; ++i) {
    const double x = 2 * random.normal();
    for (const double v : {0.0, x}) logits.push_back(float(v)), tripled.push_back(float(3 * v));
    labels.push_back(random.uniform(0, 1) < 1 / (1 + std::exp(-x)) ? 1 : 0);
  }
  EXPECT_NEAR(fit_temperature(logits, labels, 2), 1, 0.05);
  EXPECT_NEAR(fit_temperature(tripled, labels, 2), 3, 0.15);
}

TEST(Contract, TemperatureStaysInItsRangeWhereNoneIsBest) {
  const std::vector<float> right{0, 5, 0, 5}, wrong{5, 0, 5, 0};
  const std::vector<std::int32_t> labels{1, 1};
  EXPECT_NEAR(fit_temperature(right, labels, 2), 0.05, 0.01);
  EXPECT_NEAR(fit_temperature(wrong, labels, 2), 20, 1);
}

data::Splits grey(std::uint8_t low, std::uint8_t high) {
  data::Splits splits;
  auto& train = splits.train;
  train.height = train.width = 28;
  train.channels = 1;
  train.classes = {"no", "yes"};
  for (int i = 0; i < 8; ++i) {
    for (int p = 0; p < 784; ++p) train.pixels.push_back(p % 2 ? high : std::uint8_t(low + i));
    train.labels.push_back(i % 2);
  }
  splits.validation = splits.test = train.like();
  return splits;
}

TEST(Contract, TellsAnImageThatTheModelWasNotTrainedFor) {
  auto model = models::FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, 1, 28}}).value();
  model.initialise(RandomStream(1, "x"));
  const auto contract = make_contract(model, grey(40, 160));
  EXPECT_EQ(contract.temperature, 1) << "there are no validation images";
  EXPECT_FALSE(unlike(contract, grey(42, 160).train.image(0)));
  EXPECT_THAT(unlike(contract, std::vector<std::uint8_t>(784, 255)).value(), HasSubstr("brightness 255"));
  EXPECT_THAT(unlike(contract, std::vector<std::uint8_t>(784, 102)).value(), HasSubstr("contrast 0"));
}

TEST(Contract, StandsInAModelFileAndIsReadWithDistrust) {
  const preceptor::test::TempDir dir;
  auto model = models::FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, 1, 28}}).value();
  model.initialise(RandomStream(1, "x"));
  const auto contract = make_contract(model, grey(40, 160));
  const auto file = dir / "m.safetensors";
  const auto read = [&](const std::map<std::string, std::string>& metadata) {
    EXPECT_TRUE(models::save_model(file, model, metadata).has_value());
    return read_contract(models::load_model(file).value(), "m");
  };
  const auto again = read(contract_metadata(contract));
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->classes, contract.classes);
  EXPECT_EQ(again->brightness_high, contract.brightness_high);
  EXPECT_EQ(read({}).error().code, Code::kNotFound);
  EXPECT_EQ(read({{"contract", "classes: [a"}}).error().code, Code::kCorrupt);
  EXPECT_EQ(read({{"contract", "temperature: -1"}}).error().code, Code::kCorrupt);
  EXPECT_THAT(read({{"contract", "classes: [a, b, c]"}}).error().message, HasSubstr("names 3 classes"));
}

}  // namespace
}  // namespace preceptor::training
