// The program on images with masks: distill, evaluate whole and in tiles, simulate, report.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "tests/support/masked_folder.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kJob = R"(
seed: 5
data:
  kind: masks
  image_size: 32
  partition: {method: site, minimum: 4, consortium: 0.3}
teacher: {training: {epochs: 0}}
student:
  model: {name: unext, width: 1, variant: small, stem: small}
  training: {optimizer: adamw, epochs: 20, batch: 4, learning_rate: 0.005}
federation: {rounds: 1}
training: {optimizer: adamw, epochs: 1, batch: 4, learning_rate: 0.001}
personalise_epochs: 1
)";

struct Outcome {
  int code;
  std::string output;
  nlohmann::json json() const { return nlohmann::json::parse(output, nullptr, false); }
};

/// A student of 32 × 32 pixels, made once.
class SegmentationProgram : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new test::TempDir;
    test::write_masked_folder(folder("large"), 10, 50);
    test::write_masked_folder(folder("exact"), 4, 32);
    test::write_masked_folder(folder("small"), 4, 20);
    ASSERT_TRUE(write_file(*dir_ / "c.yaml", std::string(kJob)));
    const auto done = run(
        {"distill", (*dir_ / "c.yaml").string(), "--set", "data.path=" + folder("large"), "--out", folder("student")});
    ASSERT_EQ(done.code, 0) << done.output;
  }
  static void TearDownTestSuite() {
    delete dir_;
    dir_ = nullptr;
  }

  static std::string folder(const std::string& name) { return (*dir_ / name).string(); }
  static std::string student() { return (*dir_ / "student" / "student.safetensors").string(); }
  static Outcome run(std::vector<std::string> words) {
    words.insert(words.begin(), PRECEPTOR_PROGRAM);
    test::Process process(words, *dir_ / "run.log");
    const int code = process.wait();
    return {code, process.output()};
  }
  static Outcome evaluate(const std::string& data, std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"evaluate", student(), data});
    return run(flags);
  }

  static inline test::TempDir* dir_ = nullptr;
};

TEST_F(SegmentationProgram, EvaluateTellsDiceAndDistance) {
  const auto done = evaluate(folder("large"), {"--json"});
  ASSERT_EQ(done.code, 0) << done.output;
  const auto json = done.json();
  EXPECT_EQ(json["images"], 30) << "the folder has no splits: all of it";
  EXPECT_GT(json["dice"].get<double>(), 0.5);
  EXPECT_LT(json["iou"].get<double>(), json["dice"].get<double>());
  EXPECT_GE(json["hd95"].get<double>(), 0);
  EXPECT_TRUE(json["auc"].is_null());
  const auto text = evaluate(folder("large"));
  EXPECT_EQ(text.code, 0);
  EXPECT_THAT(text.output, HasSubstr("Dice"));
  EXPECT_THAT(text.output, HasSubstr("HD95, px"));
  EXPECT_THAT(text.output, Not(HasSubstr("AUC")));
}

TEST_F(SegmentationProgram, TiledAtTheModelsOwnSizeIsTheSameAsWhole) {
  const auto whole = evaluate(folder("exact"), {"--json"}), tiled = evaluate(folder("exact"), {"--json", "--tiled"});
  ASSERT_EQ(whole.code, 0) << whole.output;
  ASSERT_EQ(tiled.code, 0) << tiled.output;
  EXPECT_EQ(tiled.json()["images"], 12);
  // A batch of one and a batch of twelve may differ in a last bit, and so in a pixel.
  EXPECT_NEAR(tiled.json()["dice"].get<double>(), whole.json()["dice"].get<double>(), 0.005);
}

TEST_F(SegmentationProgram, TiledTakesImagesOfAnySize) {
  for (const auto* name : {"large", "small"}) {
    const auto done = evaluate(folder(name), {"--tiled", "--json", "--split", "all"});
    ASSERT_EQ(done.code, 0) << done.output;
    EXPECT_EQ(done.json()["images"], name[0] == 'l' ? 30 : 12);
    EXPECT_GT(done.json()["dice"].get<double>(), 0.4) << name;
  }
}

TEST_F(SegmentationProgram, EvaluateRefusesWhatDoesNotFitInOneLine) {
  const auto classes = evaluate(folder("large"), {"--masks", "class"});
  EXPECT_EQ(classes.code, 2);
  EXPECT_THAT(classes.output, HasSubstr(".png: has class 2; there are 2 classes, 0 … 1"));
  const auto tiled = evaluate(folder("large"), {"--masks", "class", "--tiled"});
  EXPECT_EQ(tiled.code, 2);
  EXPECT_THAT(tiled.output, HasSubstr("has a class that the model does not know"));
  const auto kind = evaluate(folder("large"), {"--tiled", "--kind", "folder"});
  EXPECT_EQ(kind.code, 2);
  EXPECT_THAT(kind.output, HasSubstr("--tiled is for images with masks (--kind masks), not for 'folder'"));
  const auto folders = evaluate(folder("large"), {"--kind", "folder"});  // images/ and labels/ as two classes
  EXPECT_EQ(folders.code, 2);
  EXPECT_THAT(folders.output, HasSubstr("unext is for segmentation, the data are for classification"));
}

TEST_F(SegmentationProgram, AModelThatClassifiesIsRefusedOnMasksTiledOrNot) {
  const auto made = run({"distill", (*dir_ / "c.yaml").string(), "--set", "data.kind=phantom", "--set",
                         "data.phantom.images=240", "--set", "student.model={name: shufflenet_v2, width: 0.5, stem: small}",
                         "--set", "student.training.epochs=1", "--out", folder("classifier")});
  ASSERT_EQ(made.code, 0) << made.output;
  const auto model = (*dir_ / "classifier" / "student.safetensors").string();
  for (const std::string flag : {"--json", "--tiled"}) {
    const auto done = run({"evaluate", model, folder("large"), flag});
    EXPECT_EQ(done.code, 2) << flag;
    EXPECT_THAT(done.output, HasSubstr("shufflenet_v2 is for classification, the data are for segmentation")) << flag;
  }
}

TEST_F(SegmentationProgram, ASimulationIsReportedByDice) {
  const auto out = folder("sim");
  const auto done = run({"sim", "run", (*dir_ / "c.yaml").string(), "--set", "data.path=" + folder("large"), "--set",
                         "student.training.epochs=1", "--out", out});
  ASSERT_EQ(done.code, 0) << done.output;
  EXPECT_THAT(done.output, HasSubstr("test Dice"));
  const auto report = run({"report", out});
  ASSERT_EQ(report.code, 0) << report.output;
  const auto page = read_text(*dir_ / "sim" / "report.html", 2 << 20).value_or("");
  EXPECT_THAT(page, HasSubstr("Local Dice"));
  EXPECT_THAT(page, HasSubstr("HD95 (pixels)"));
  EXPECT_THAT(page, Not(HasSubstr("AUC")));
}

}  // namespace
