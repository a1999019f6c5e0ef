#include "deploy/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "deploy/profile.h"
#include "tests/support/temp_dir.h"

namespace preceptor::deploy {
namespace {

using testing::HasSubstr;

constexpr char kRecipe[] = R"(
job: test
seeds: [1]
runs: 10
data:
  kind: phantom
  image_size: 28
  phantom: {images: 160, sites: 1}
teacher:
  model: {name: resnet18, width: 0.125, stem: small}
  training: {epochs: 1, batch: 16}
chains:
  - name: full
    steps:
      - {step: distil, model: {name: mobilenet_v2, width: 0.35, stem: small}, training: {epochs: 1, batch: 16}}
      - {step: prune, prune: {ratio: 0.3, round_to: 4}, training: {epochs: 1, batch: 16}}
      - {step: quantise, quantise: {budget: 1000}}
  - name: low-rank
    steps:
      - {step: factorise, factorise: {energy: 0.8}}
)";

RecipeOptions recipe(const std::string& text = kRecipe, const std::vector<std::string>& set = {}) {
  return read_options<RecipeOptions>(parse_yaml(text, "recipe", set).value(), "recipe").value();
}

TEST(Recipe, EachStepMakesTheModelSmallerAndIsMeasured) {
  const test::TempDir dir;
  const auto result = run_recipe(recipe(), dir / "out");
  ASSERT_TRUE(result.has_value()) << result.error().message;
  const auto& seed = (*result)["seeds"][0];
  const auto& full = seed["chains"][0];
  ASSERT_EQ(full["lineage"].size(), 4u) << "the teacher's training, and three steps";
  const auto figure = [&](std::size_t step, const char* key) { return full["lineage"][step]["figures"][key].get<double>(); };
  EXPECT_LT(figure(2, "parameters"), figure(1, "parameters"));
  EXPECT_LT(figure(2, "macs"), figure(1, "macs"));
  EXPECT_LT(figure(3, "bytes"), 0.6 * figure(2, "bytes")) << "int8 weights";
  EXPECT_GT(full["figures"]["int8_layers"].get<int>(), 0);
  EXPECT_FALSE(full["figures"]["milliseconds_int8"].is_null());
  EXPECT_LT(seed["chains"][1]["figures"]["parameters"].get<double>(), seed["teacher"]["parameters"].get<double>());
  EXPECT_THAT(table_of(*result), HasSubstr("| full |"));
  const auto model = models::load_model(dir / "out" / "seed-1" / "full.safetensors");
  ASSERT_TRUE(model.has_value()) << model.error().message;
  EXPECT_FALSE(model->model.spec().structure.int8.empty());
}

TEST(Recipe, GoesOnWhereItWasStoppedWithTheSameModels) {
  const test::TempDir dir;
  const auto first = run_recipe(recipe(), dir / "out").value();
  const auto bytes = read_file(dir / "out" / "seed-1" / "full.safetensors", 1 << 26).value();
  const auto again = run_recipe(recipe(), dir / "out").value();
  EXPECT_EQ(first, again) << "nothing was trained or measured anew";
  EXPECT_EQ(read_file(dir / "out" / "seed-1" / "full.safetensors", 1 << 26).value(), bytes);
  // Measured anew: the same models, and all that does not depend on the clock.
  const auto measured = run_recipe(recipe(), dir / "out", /*measure_again=*/true).value();
  EXPECT_EQ(read_file(dir / "out" / "seed-1" / "full.safetensors", 1 << 26).value(), bytes);
  const auto at = nlohmann::ordered_json::json_pointer("/seeds/0/chains/0/lineage");
  ASSERT_EQ(measured.at(at).size(), first.at(at).size());
  for (std::size_t step = 0; step < first.at(at).size(); ++step) EXPECT_EQ(measured.at(at)[step]["figures"]["test"], first.at(at)[step]["figures"]["test"]);
  EXPECT_NE(measured, first) << "times to the nanosecond are never all the same";
  // A later step that changes leaves the earlier ones as they are.
  const auto changed = run_recipe(recipe(kRecipe, {"runs=11"}), dir / "out").value();
  EXPECT_EQ(changed["seeds"][0]["chains"][0]["lineage"][1], measured["seeds"][0]["chains"][0]["lineage"][1]);
}

TEST(Recipe, ASearchWalksTheFrontierAndSkipsWhatCannotBeBetter) {
  const test::TempDir dir;
  auto options = recipe();
  options.search = {"full", {0.2, 0.4}, {}, {"float", "int8"}, 0, 0, 2 /* no metric is that good */};
  auto result = run_recipe(options, dir / "out").value();
  EXPECT_EQ(result["seeds"][0]["search"]["tried"].size(), 1u) << "the mildest fell, so the stronger ones are not tried";
  EXPECT_TRUE(result["seeds"][0]["search"]["chosen"].is_null());
  options.search.min_metric = 0;
  result = run_recipe(options, dir / "out").value();
  EXPECT_EQ(result["seeds"][0]["search"]["tried"].size(), 4u);
  EXPECT_FALSE(result["seeds"][0]["search"]["chosen"].is_null());
}

TEST(Recipe, MistakesAreToldAtOnceBeforeAnythingIsTrained) {
  auto options = recipe();
  options.chains[0].name = "../evil";
  options.chains[1].steps[0].step = "shrink";
  options.search.chain = "none";
  options.search.ratios = {0.5, 0.2};
  const auto checked = check(options);
  ASSERT_FALSE(checked.has_value());
  for (const auto* part : {"../evil", "'shrink'", "no chain 'none'", "search.ratios: must rise"}) EXPECT_THAT(checked.error().message, HasSubstr(part));
  const auto unknown = read_options<RecipeOptions>(
      parse_yaml("chains: [{name: a, steps: [{step: quantise, prune: {ratio: 0.5}}]}]", "recipe").value(), "recipe");
  ASSERT_FALSE(unknown.has_value()) << "a step takes only the groups that it uses";
  EXPECT_THAT(unknown.error().message, HasSubstr("prune"));
}

TEST(Profile, TellsLatencyInOrderAndAgreementWithFloat) {
  auto model = models::FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, 1, 28}}).value();
  model.initialise(RandomStream(1, "profile"));
  const auto measured = profile(model, {20, 2, {1}});
  ASSERT_TRUE(measured.has_value()) << measured.error().message;
  const auto& l = measured->latency.at(0);
  EXPECT_GT(l.p50, 0);
  EXPECT_LE(l.p50, l.p95);
  EXPECT_LE(l.p95, l.p99);
  EXPECT_LE(l.p99, l.max);
  EXPECT_GT(measured->peak_rss_bytes, measured->weight_bytes);
  EXPECT_GE(measured->weight_bytes, model.space().trainable() * 3) << "all weights are packed, up to folded norms";
  EXPECT_FALSE(measured->int8);
}

}  // namespace
}  // namespace preceptor::deploy
