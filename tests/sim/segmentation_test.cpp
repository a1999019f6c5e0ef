// A federation that segments, over files, from the folder to the record of the run.
#include <gmock/gmock.h>

#include "common/file.h"
#include "sim/simulation.h"
#include "tests/support/masked_folder.h"
#include "tests/support/temp_dir.h"

namespace preceptor::sim {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

constexpr const char* kConfig = R"(
seed: 3
data:
  kind: masks
  image_size: 32
  partition: {method: site, minimum: 4, consortium: 0.2}
teacher: {training: {epochs: 0}}
student:
  model: {name: unext, width: 1, variant: small, stem: small}
  training: {optimizer: adamw, epochs: 2, batch: 4, learning_rate: 0.005}
federation: {rounds: 2, quorum: 3}
training: {optimizer: adamw, epochs: 1, batch: 4, learning_rate: 0.003, augment: {shift: 2, rotate: 90, flip: true}}
update:
  weights: [{codec: quantize, bits: 8}, {codec: zstd}]
personalise_epochs: 1
)";

class Segmentation : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    files_ = new test::TempDir;
    test::write_masked_folder(files_->path(), 14, 40);
  }
  static void TearDownTestSuite() {
    delete files_;
    files_ = nullptr;
  }

  Result<Json> run(std::vector<std::string> overrides, const std::filesystem::path& out) {
    overrides.push_back("data.path=" + files_->path().string());
    const auto yaml = TRY(parse_yaml(kConfig, "test", overrides));
    auto options = TRY(read_options<SimulationOptions>(yaml, "test"));
    return simulate(options, write_options(options), out);
  }
  Json summary_of(const std::vector<std::string>& overrides) {
    auto summary = run(overrides, dir_.path());
    if (!summary) throw std::runtime_error(summary.error().message);
    return *summary;
  }

  static inline test::TempDir* files_ = nullptr;
  test::TempDir dir_;
};

void expect_share(const Json& json, const std::string& name) {
  ASSERT_TRUE(json.contains(name)) << name;
  ASSERT_TRUE(json[name].is_number()) << name << ": " << json[name];
  EXPECT_GE(json[name].get<double>(), 0) << name;
  EXPECT_LE(json[name].get<double>(), 1) << name;
  EXPECT_LE(json[name + "_low"].get<double>(), json[name].get<double>()) << name;
  EXPECT_GE(json[name + "_high"].get<double>(), json[name].get<double>()) << name;
}

TEST_F(Segmentation, IsRecordedByDiceOfEveryModelAndSite) {
  const auto summary = summary_of({});
  ASSERT_TRUE(summary.contains("test"));
  EXPECT_EQ(summary["completed"], true);
  EXPECT_EQ(summary["rounds"], 2);
  EXPECT_EQ(summary["student"], "unext");
  EXPECT_EQ(summary["classes"], (Json{"background", "object"}));
  for (const auto* part : {"test", "distilled"}) {
    expect_share(summary[part], "dice");
    expect_share(summary[part], "iou");
    EXPECT_LE(summary[part]["iou"].get<double>(), summary[part]["dice"].get<double>()) << part;
    for (const auto* name : {"auc", "accuracy", "sensitivity", "specificity", "ece"})
      EXPECT_TRUE(summary[part][name].is_null()) << name;
  }
  EXPECT_TRUE(summary["teacher"]["auc"].is_null());
  EXPECT_FALSE(summary["teacher"].contains("dice")) << "there was none";
  ASSERT_EQ(summary["sites"].size(), 3u);
  const char* names[] = {"north", "south", "west"};
  for (std::size_t s = 0; s < 3; ++s) {
    const auto& site = summary["sites"][s];
    EXPECT_EQ(site["name"], names[s]);
    EXPECT_EQ(site["metric"], "dice");
    EXPECT_GT(site["train"], 0);
    for (const auto* name : {"local_dice", "global_dice", "personalised_dice"}) expect_share(site, name);
    EXPECT_TRUE(site["local_auc"].is_null());
    EXPECT_TRUE(site["global_accuracy"].is_null());
    const auto chosen = site[site["chosen"].get<std::string>() + "_dice"].get<double>();
    EXPECT_NEAR(site["difference"].get<double>(), chosen - site["local_dice"].get<double>(), 1e-9);
    EXPECT_GT(site["p_value"], 0);
  }
  const auto lines = *read_text(dir_ / "rounds.jsonl", 1 << 20);
  EXPECT_EQ(std::ranges::count(lines, '\n'), 2);
  const auto first = Json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_EQ(first["outcome"], "complete");
  expect_share(first["validation"], "dice");
  const auto model = models::load_model(dir_ / "model.safetensors");
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model_hash(model->model.store()), summary["model_hash"]);
}

TEST_F(Segmentation, LearnsToFindTheDiscs) {
  const auto summary = summary_of({"student.training.epochs=12", "federation.rounds=3", "training.epochs=3"});
  // Calling every pixel an object has 0.25 here; 0.94 is what this seed reaches.
  EXPECT_GT(summary["test"]["dice"].get<double>(), 0.75);
}

TEST_F(Segmentation, DoesNotDependOnTheNumberOfThreads) {
  const auto one = summary_of({"sim.threads=1"}), two = summary_of({"sim.threads=2"});
  EXPECT_EQ(one["model_hash"], two["model_hash"]);
  EXPECT_EQ(one["sites"], two["sites"]);
  EXPECT_NE(one["model_hash"], summary_of({"seed=4"})["model_hash"]);
}

TEST_F(Segmentation, ATeacherOfAnotherArchitectureGuidesTheStudent) {
  const std::vector<std::string> teacher{"teacher.training={optimizer: adamw, epochs: 1, batch: 4}",
                                         "teacher.model={name: ultralight_vm_unet, width: 1, stem: small}"};
  const auto with = summary_of(teacher);
  expect_share(with["teacher"], "dice");
  EXPECT_GT(with["teacher"]["parameters"], 0);
  EXPECT_NE(with["model_hash"], summary_of({})["model_hash"]);
}

TEST_F(Segmentation, ByANetworkThatClassifiesIsRefusedBeforeAnythingIsTrained) {
  const std::string message =
      "shufflenet_v2 is for classification, the data are for segmentation; `preceptor models --task segmentation`";
  // Trained, these teachers would take hours.
  const std::vector<std::string> wrong_student{"student.model={name: shufflenet_v2, stem: small}",
                                               "teacher.model={name: ultralight_vm_unet, width: 1, stem: small}",
                                               "teacher.training.epochs=100000"};
  const std::vector<std::string> wrong_teacher{"teacher.model={name: shufflenet_v2, stem: small}",
                                               "teacher.training.epochs=100000"};
  for (const auto& overrides : {wrong_student, wrong_teacher}) {
    const auto refused = run(overrides, dir_.path());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::kInvalid);
    EXPECT_THAT(refused.error().message, HasSubstr(message));
  }
}

TEST_F(Segmentation, NetworksDoNotTakeImagesWithoutMasks) {
  const auto refused = run({"data.kind=phantom"}, dir_.path());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("unext is for segmentation, the data are for classification"));
}

}  // namespace
}  // namespace preceptor::sim
