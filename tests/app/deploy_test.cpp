// The way into a clinic as a user goes it: compress, profile, choose, card, predict.
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>

#include "common/file.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;
using testing::HasSubstr;

constexpr const char* kRecipe = R"(
runs: 10
data:
  kind: folder
  image_size: 28
teacher:
  model: {name: resnet18, width: 0.125, stem: small}
  training: {epochs: 2, batch: 16, optimizer: adamw, learning_rate: 0.003}
chains:
  - name: small
    steps:
      - {step: prune, prune: {ratio: 0.3, round_to: 4}}
      - {step: quantise}
)";

struct Outcome {
  int code;
  std::string output;
  nlohmann::json json() const { return nlohmann::json::parse(output, nullptr, false); }
};

/// Bright and dark stripes, a class each, and a recipe's models of them; made once.
class Deployment : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new test::TempDir;
    for (const auto* name : {"dark", "light"}) {
      std::filesystem::create_directories(path("images") + "/" + name);
      for (int i = 0; i < 60; ++i) {
        const int base = (std::string(name) == "dark" ? 40 : 110) + i / 2;
        cv::Mat image(32, 32, CV_8UC1);
        for (int y = 0; y < 32; ++y)
          for (int x = 0; x < 32; ++x) image.at<std::uint8_t>(y, x) = std::uint8_t(base + (x / 4 % 2) * (30 + i % 7) + (y * 5 + x * 3 + i) % 11);
        cv::imwrite(path("images") + "/" + name + "/" + std::to_string(i) + ".png", image);
      }
    }
    ASSERT_TRUE(write_file(*dir_ / "recipe.yaml", std::string(kRecipe)));
    const auto done = run({"compress", path("recipe.yaml"), "--set", "data.path=" + path("images"), "--out", path("out")});
    ASSERT_EQ(done.code, 0) << done.output;
    ASSERT_THAT(done.output, HasSubstr("| small |"));
  }
  static void TearDownTestSuite() { delete dir_; }

  static std::string path(const std::string& name) { return (*dir_ / name).string(); }
  static std::string model() { return path("out/seed-1/small.safetensors"); }
  static Outcome run(std::vector<std::string> words) {
    words.insert(words.begin(), {"/usr/bin/env", "PRECEPTOR_LOG=warn", PRECEPTOR_PROGRAM});
    test::Process process(words, *dir_ / "run.log");
    const int code = process.wait();
    return {code, process.output()};
  }
  static test::TempDir* dir_;
};
test::TempDir* Deployment::dir_ = nullptr;

TEST_F(Deployment, ProfilesAnInt8ModelBesideItsFloatSelf) {
  const auto done = run({"deploy", "profile", model(), "--data", path("images"), "--split", "all", "--runs", "20", "--threads", "1", "--out", path("profile"), "--json"});
  ASSERT_EQ(done.code, 0) << done.output;
  const auto json = done.json();
  EXPECT_EQ(json["profile"]["precision"], "int8") << done.output;
  EXPECT_EQ(json["float_profile"]["precision"], "float32");
  EXPECT_EQ(json["int8_against_float"]["images"], 120);
  EXPECT_GT(json["test"]["auc"].get<double>(), 0.9);
  EXPECT_THAT(read_text(path("profile/profile.html"), 1 << 20).value(), HasSubstr("ms an image on 1 thread"));
}

TEST_F(Deployment, TheGateComesBeforeTheStopwatch) {
  const auto done = run({"deploy", "profile", model(), "--data", path("images"), "--split", "all", "--gate", "1.0", "--runs", "20", "--out", path("gated")});
  const auto auc = run({"evaluate", model(), path("images"), "--split", "all", "--json"}).json()["auc"].get<double>();
  if (auc < 1) {
    EXPECT_EQ(done.code, 1);
    EXPECT_FALSE(std::filesystem::exists(path("gated/profile.json")));
  }
  EXPECT_EQ(run({"deploy", "profile", model(), "--gate", "0.5"}).code, 2) << "a gate without data";
}

TEST_F(Deployment, ChoosesWithinABudgetOrSaysThatNoneFits) {
  const auto some = run({"deploy", "choose", path("out"), "--data", path("images"), "--split", "all", "--runs", "10", "--json"});
  ASSERT_EQ(some.code, 0) << some.output;
  EXPECT_FALSE(some.json()["chosen"].is_null());
  const auto none = run({"deploy", "choose", path("out"), "--data", path("images"), "--split", "all", "--runs", "10", "--max-mib", "0.0001"});
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.output, HasSubstr("none fits"));
}

TEST_F(Deployment, ACardTellsUseOriginMetricsAndLimits) {
  const auto done = run({"deploy", "card", model(), "--data", path("images"), "--out", path("card"), "--json"});
  ASSERT_EQ(done.code, 0) << done.output;
  const auto card = done.json();
  ASSERT_EQ(card["lineage"]["steps"].size(), 3u) << "teacher, prune, quantise";
  EXPECT_EQ(card["lineage"]["steps"][1]["step"], "prune");
  EXPECT_EQ(card["by_class"].size(), 2u);
  EXPECT_THAT(card["intended_use"].get<std::string>(), HasSubstr("dark, light"));
  EXPECT_GE(card["limits"].size(), 4u);
  EXPECT_THAT(read_text(path("card/card.html"), 1 << 20).value(), HasSubstr("What was done, and what it cost"));
}

TEST_F(Deployment, PredictsWhatItKnowsAndRefusesWhatItDoesNot) {
  const auto good = run({"predict", model(), path("images/dark/3.png"), "--json"});
  ASSERT_EQ(good.code, 0) << good.output;
  EXPECT_EQ(good.json()[0]["class"], "dark");
  cv::imwrite(path("white.png"), cv::Mat(64, 64, CV_8UC1, cv::Scalar(255)));
  std::ofstream(path("broken.png")) << "no image at all";
  for (const auto* file : {"white.png", "broken.png"}) {
    const auto refused = run({"predict", model(), path(file), "--json"});
    EXPECT_EQ(refused.code, 1) << refused.output;
    EXPECT_TRUE(refused.json()[0].contains("refused")) << refused.output;
  }
  EXPECT_EQ(run({"predict", model(), path("nowhere.png")}).code, 1);
  EXPECT_EQ(run({"predict", path("white.png"), path("white.png")}).code, 2) << "not a model";
}

TEST_F(Deployment, AWrongRecipeIsToldWhole) {
  ASSERT_TRUE(write_file(path("wrong.yaml"), std::string("chains: [{name: a, steps: [{step: shrink}]}]\nsearch: {chain: b}\nunknown: 1\n")));
  auto done = run({"compress", path("wrong.yaml"), "--out", path("wrong")});
  EXPECT_EQ(done.code, 2);
  EXPECT_THAT(done.output, HasSubstr("unknown"));
  done = run({"compress", path("wrong.yaml"), "--out", path("wrong"), "--set", "unknown="});
  EXPECT_EQ(done.code, 2);
}

}  // namespace
