// Teacher and central baseline at each site, which only a simulation can measure.
#include <gtest/gtest.h>

#include "sim/simulation.h"
#include "tests/support/masked_folder.h"
#include "tests/support/temp_dir.h"

namespace preceptor::sim {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kClassify = R"(
seed: 3
data:
  kind: phantom
  phantom: {images: 240, sites: 3}
  partition: {method: site, consortium: 0.2}
teacher:
  model: {name: shufflenet_v2, width: 0.5, stem: small}
  training: {epochs: 1}
student:
  model: {name: shufflenet_v2, width: 0.5, stem: small}
  training: {epochs: 0}
federation: {rounds: 1, quorum: 3}
personalise_epochs: 0
)";

constexpr const char* kSegment = R"(
seed: 3
data:
  kind: masks
  image_size: 32
  partition: {method: site, minimum: 4, consortium: 0.2}
teacher:
  model: {name: ultralight_vm_unet, width: 1, stem: small}
  training: {optimizer: adamw, epochs: 2, batch: 4, learning_rate: 0.005}
student:
  model: {name: unext, width: 1, variant: small, stem: small}
  training: {epochs: 0}
federation: {rounds: 1, quorum: 3}
training: {optimizer: adamw, epochs: 2, batch: 4, learning_rate: 0.005}
personalise_epochs: 0
)";

Json summary_of(const char* config, const std::vector<std::string>& overrides) {
  const test::TempDir out;
  const auto yaml = parse_yaml(config, "test", overrides);
  if (!yaml) throw std::runtime_error(yaml.error().message);
  const auto options = read_options<SimulationOptions>(*yaml, "test");
  if (!options) throw std::runtime_error(options.error().message);
  auto read = *options;
  auto summary = simulate(read, write_options(read), out.path());
  if (!summary) throw std::runtime_error(summary.error().message);
  return *summary;
}

/// A mean over images, from that of each site: what the model has on all sites' test images together.
double over_sites(const Json& summary, const std::string& key) {
  double sum = 0, images = 0;
  for (const auto& site : summary.at("sites")) {
    sum += site.at(key).get<double>() * site.at("test").get<double>();
    images += site.at("test").get<double>();
  }
  return sum / images;
}

bool told_of(const Json& site, const std::string& model) {
  return std::ranges::any_of(site.items(), [&](const auto& item) { return item.key().starts_with(model + "_"); });
}

TEST(References, OfAClassificationAgreeAtTheSitesWithAllSitesTogether) {
  const auto summary = summary_of(kClassify, {"sim.central=true"});
  ASSERT_EQ(summary["sites"].size(), 3u);
  for (const std::string model : {"teacher", "central"}) {
    EXPECT_NEAR(over_sites(summary, model + "_accuracy"), summary[model]["accuracy"].get<double>(), 1e-9) << model;
    for (const auto& site : summary["sites"]) {
      EXPECT_LE(site.at(model + "_auc_low"), site.at(model + "_auc"));
      EXPECT_GE(site.at(model + "_auc_high"), site.at(model + "_auc"));
      EXPECT_TRUE(site.at(model + "_dice").is_null());
    }
  }
  EXPECT_NE(summary["sites"][0]["teacher_auc"], summary["sites"][0]["central_auc"]) << "two models";
}

TEST(References, OfASegmentationAgreeAtTheSitesWithAllSitesTogether) {
  const test::TempDir files;
  test::write_masked_folder(files.path(), 14, 40);
  const auto summary = summary_of(kSegment, {"sim.central=true", "data.path=" + files.path().string()});
  ASSERT_EQ(summary["sites"].size(), 3u);
  for (const std::string model : {"teacher", "central"}) {
    // Batches differ, and so may a last bit and a pixel.
    EXPECT_NEAR(over_sites(summary, model + "_dice"), summary[model]["dice"].get<double>(), 0.002) << model;
    for (const auto& site : summary["sites"]) {
      EXPECT_LE(site.at(model + "_dice_low"), site.at(model + "_dice"));
      EXPECT_TRUE(site.at(model + "_auc").is_null());
    }
  }
  EXPECT_NE(summary["sites"][0]["teacher_dice"], summary["sites"][0]["central_dice"]) << "two models";
}

TEST(References, DoNotDependOnTheNumberOfThreadsNorOnEachOther) {
  const auto one = summary_of(kClassify, {"sim.threads=1", "sim.central=true"}), two = summary_of(kClassify, {"sim.threads=2"});
  EXPECT_EQ(one["model_hash"], two["model_hash"]);
  for (std::size_t s = 0; s < 3; ++s) {
    EXPECT_EQ(one["sites"][s]["teacher_auc"], two["sites"][s]["teacher_auc"]);
    EXPECT_FALSE(told_of(two["sites"][s], "central"));
  }
}

TEST(References, AreNotToldOfWhereThereAreNone) {
  const auto summary = summary_of(kClassify, {"teacher.training.epochs=0"});
  ASSERT_EQ(summary["sites"].size(), 3u);
  for (const auto& site : summary["sites"]) {
    EXPECT_FALSE(told_of(site, "teacher")) << site;
    EXPECT_FALSE(told_of(site, "central")) << site;
    EXPECT_TRUE(told_of(site, "local")) << site;
  }
}

TEST(References, AreNullAtASiteWithoutATestImage) {
  const auto summary = summary_of(kClassify, {"data.partition.test=0"});
  ASSERT_EQ(summary["sites"].size(), 3u);
  for (const auto& site : summary["sites"]) {
    EXPECT_EQ(site["test"], 0);
    EXPECT_TRUE(site.at("teacher_auc").is_null());
    EXPECT_TRUE(site.at("teacher_accuracy").is_null());
  }
}

}  // namespace
}  // namespace preceptor::sim
