#include "deploy/predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <opencv2/imgcodecs.hpp>

#include "tests/support/temp_dir.h"

namespace preceptor::deploy {
namespace {

using testing::HasSubstr;

/// A model file for grey or colour images whose pixels have mean 20 … 200 and deviation 10 … 100.
std::filesystem::path make_model(const test::TempDir& dir, int channels, double temperature = 1) {
  auto model = models::FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, channels, 28}}).value();
  model.initialise(RandomStream(1, "predictor"));
  const training::Contract contract{{"healthy", "lesion"}, 20, 200, 10, 100, temperature};
  const auto file = dir / "model.safetensors";
  EXPECT_TRUE(models::save_model(file, model, training::contract_metadata(contract)).has_value());
  return file;
}

/// Stripes of two values, side × side; grey, or RGB with red apart from the rest.
std::vector<std::byte> png(int side, int low, int high, int channels = 1, int red = 0) {
  cv::Mat image(side, side, channels == 3 ? CV_8UC3 : CV_8UC1);
  for (int y = 0; y < side; ++y)
    for (int x = 0; x < side; ++x) {
      const auto value = std::uint8_t(x / 4 % 2 ? low : high);
      if (channels == 1) image.at<std::uint8_t>(y, x) = value;
      else image.at<cv::Vec3b>(y, x) = {value, value, std::uint8_t(std::min(255, value + red))};
    }
  std::vector<std::uint8_t> bytes;
  cv::imencode(".png", image, bytes);
  const auto view = std::as_bytes(std::span(bytes));
  return {view.begin(), view.end()};
}

std::string refusal(Predictor& predictor, const std::vector<std::byte>& image) {
  const auto prediction = predictor.predict(image);
  EXPECT_FALSE(prediction.has_value());
  if (prediction) return "";
  EXPECT_EQ(prediction.error().code, Code::kRefused);
  return prediction.error().message;
}

TEST(Predictor, GivesProbabilitiesAndTheLikeliestClass) {
  const test::TempDir dir;
  auto predictor = Predictor::load(make_model(dir, 1)).value();
  const auto prediction = predictor.predict(png(56, 60, 160));
  ASSERT_TRUE(prediction.has_value()) << prediction.error().message;
  EXPECT_NEAR(prediction->probabilities[0] + prediction->probabilities[1], 1, 1e-9);
  EXPECT_GE(prediction->probabilities[prediction->chosen], 0.5);
}

TEST(Predictor, TemperatureSoftensWithoutChangingTheClass) {
  const test::TempDir one, two;
  auto plain = Predictor::load(make_model(one, 1, 1)).value(), cooled = Predictor::load(make_model(two, 1, 4)).value();
  const auto a = plain.predict(png(28, 60, 160)).value(), b = cooled.predict(png(28, 60, 160)).value();
  EXPECT_EQ(a.chosen, b.chosen);
  const double x = std::log(a.probabilities[1] / a.probabilities[0]), y = std::log(b.probabilities[1] / b.probabilities[0]);
  EXPECT_NEAR(y, x / 4, 1e-6 + 1e-4 * std::abs(x));
}

TEST(Predictor, RefusesWhatTheModelWasNotTrainedFor) {
  const test::TempDir dir;
  auto grey = Predictor::load(make_model(dir, 1)).value();
  EXPECT_THAT(refusal(grey, png(20, 60, 160)), HasSubstr("at least 28 px"));
  EXPECT_THAT(refusal(grey, png(56, 60, 160, 3, 90)), HasSubstr("colour image; the model was trained on grey"));
  EXPECT_THAT(refusal(grey, png(56, 240, 255)), HasSubstr("brightness"));
  EXPECT_THAT(refusal(grey, png(56, 100, 102)), HasSubstr("contrast"));
  EXPECT_TRUE(grey.predict(png(56, 60, 160, 3, 0)).has_value()) << "grey, saved as RGB";
  const test::TempDir other;
  auto colour = Predictor::load(make_model(other, 3)).value();
  EXPECT_THAT(refusal(colour, png(56, 60, 160)), HasSubstr("grey image; the model was trained on colour"));
  EXPECT_TRUE(colour.predict(png(56, 60, 160, 3, 60)).has_value());
}

TEST(Predictor, GarbageIsAnErrorAndNoCrash) {
  const test::TempDir dir;
  auto predictor = Predictor::load(make_model(dir, 1)).value();
  auto image = png(56, 60, 160);
  EXPECT_FALSE(predictor.predict(std::span(image).first(40)).has_value());
  EXPECT_FALSE(predictor.predict({}).has_value());
  for (std::size_t i = 20; i < image.size(); i += 7) {
    auto broken = image;
    broken[i] ^= std::byte{0xff};
    (void)predictor.predict(broken);
  }
}

TEST(Predictor, AFileWithoutAContractIsRefused) {
  const test::TempDir dir;
  auto model = models::FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, 1, 28}}).value();
  model.initialise(RandomStream(1, "predictor"));
  ASSERT_TRUE(models::save_model(dir / "m.safetensors", model).has_value());
  EXPECT_EQ(Predictor::load(dir / "m.safetensors").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace preceptor::deploy
