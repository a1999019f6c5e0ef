#include "deploy/choose.h"

#include <gtest/gtest.h>

namespace preceptor::deploy {
namespace {

std::vector<Candidate> three() { return {{"accurate", 0.95, 8, 4}, {"fast", 0.90, 1, 0.5}, {"worse", 0.89, 2, 0.5}}; }

TEST(Choose, TakesTheBestMetricThatFitsTheBudget) {
  auto candidates = three();
  EXPECT_EQ(choose(candidates, {}), 0u);
  EXPECT_EQ(choose(candidates, {.max_milliseconds = 5}), 1u);
  EXPECT_EQ(choose(candidates, {.max_mib = 1}), 1u);
  EXPECT_EQ(choose(candidates, {.max_milliseconds = 5, .min_metric = 0.92}), std::nullopt);
}

TEST(Choose, MarksTheFrontierWhateverTheBudget) {
  auto candidates = three();
  choose(candidates, {.max_milliseconds = 0.1});
  EXPECT_TRUE(candidates[0].frontier);
  EXPECT_TRUE(candidates[1].frontier);
  EXPECT_FALSE(candidates[2].frontier) << "slower and less accurate than `fast`, and no smaller";
}

TEST(Choose, SaysWhichRuleIsBroken) {
  auto candidates = three();
  choose(candidates, {.max_milliseconds = 5, .max_mib = 0.25, .min_metric = 0.9});
  EXPECT_EQ(candidates[0].why_not, "8.00 ms > 5.00 ms");
  EXPECT_EQ(candidates[1].why_not, "0.50 MiB > 0.25 MiB");
  EXPECT_EQ(candidates[2].why_not, "metric 0.890 < 0.900");
}

TEST(Choose, EqualMetricsGoToTheFasterThenTheSmallerThenTheFirst) {
  std::vector<Candidate> candidates{{"a", 0.9, 2, 1}, {"b", 0.9, 1, 2}, {"c", 0.9, 1, 1}, {"d", 0.9, 1, 1}};
  EXPECT_EQ(choose(candidates, {}), 2u);
  std::vector<Candidate> none;
  EXPECT_EQ(choose(none, {}), std::nullopt);
}

}  // namespace
}  // namespace preceptor::deploy
