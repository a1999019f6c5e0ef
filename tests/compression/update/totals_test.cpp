#include "compression/update/totals.h"

#include <gmock/gmock.h>

#include <cmath>

#include "common/random.h"

namespace preceptor::compression {
namespace {

/// Every pair of a positive and a negative: won, tied or lost.
std::optional<double> exact_auc(std::span<const float> scores, std::span<const std::int32_t> labels) {
  double wins = 0, pairs = 0;
  for (std::size_t i = 0; i < scores.size(); ++i)
    for (std::size_t j = 0; j < scores.size(); ++j)
      if (labels[i] == 1 && labels[j] == 0) {
        ++pairs;
        wins += scores[i] > scores[j] ? 1 : scores[i] == scores[j] ? 0.5 : 0;
      }
  if (pairs == 0) return std::nullopt;
  return wins / pairs;
}

struct Scored {
  std::vector<float> probabilities;  ///< [N, 2]
  std::vector<float> scores;         ///< of class 1
  std::vector<std::int32_t> labels;
};
/// grid: scores lie in the middle of the histograms' bins.
Scored scored(std::size_t count, std::uint64_t seed, bool grid) {
  Scored made;
  RandomStream random(seed, "scored");
  for (std::size_t i = 0; i < count; ++i) {
    const int label = random.below(3) == 0;
    double p = 1 / (1 + std::exp(-(random.normal() * 1.5 + (label ? 1 : -1))));
    if (grid) p = (std::floor(p * 64) + 0.5) / 64;
    made.labels.push_back(label);
    made.scores.push_back(float(p));
    made.probabilities.insert(made.probabilities.end(), {float(1 - p), float(p)});
  }
  return made;
}

TEST(ScoreHistogram, AucIsExactForScoresOnItsGrid) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto data = scored(150, seed, true);
    const auto histograms = score_histograms(data.probabilities, data.labels, 2);
    EXPECT_NEAR(pooled_auc(histograms).value(), exact_auc(data.scores, data.labels).value(), 1e-12);
  }
}

TEST(ScoreHistogram, AucOfAnyScoresIsWithinHalfOfWhatSharesABin) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto data = scored(400, seed, false);
    const auto histogram = score_histograms(data.probabilities, data.labels, 2).at(0);
    double positives = 0, negatives = 0, tied = 0;
    for (std::size_t b = 0; b < ScoreHistogram::kBins; ++b) {
      positives += double(histogram.positive[b]), negatives += double(histogram.negative[b]);
      tied += double(histogram.positive[b] * histogram.negative[b]);
    }
    const auto bound = 0.5 * tied / (positives * negatives);
    EXPECT_NEAR(histogram.auc().value(), exact_auc(data.scores, data.labels).value(), bound);
    EXPECT_LT(bound, 0.02);
  }
}

TEST(ScoreHistogram, IsNotDefinedWhereOneSideIsEmpty) {
  ScoreHistogram histogram;
  EXPECT_FALSE(histogram.auc());
  histogram.add(0.5f, true);
  EXPECT_FALSE(histogram.auc());
  histogram.add(0.1f, false);
  EXPECT_DOUBLE_EQ(histogram.auc().value(), 1);
}

TEST(ScoreHistogram, ScoresOutsideTheirRangeCountAsItsEnds) {
  ScoreHistogram histogram;
  for (const float low : {-1.0f, 0.0f, -INFINITY, NAN}) histogram.add(low, false);
  for (const float high : {1.0f, 1e30f, INFINITY}) histogram.add(high, true);
  EXPECT_EQ(histogram.negative[0], 4u);
  EXPECT_EQ(histogram.positive[ScoreHistogram::kBins - 1], 3u);
}

TEST(ScoreHistogram, ThreeClassesAreEachHeldAgainstTheRest) {
  const std::vector<float> probabilities{0.8f, 0.1f, 0.1f, 0.2f, 0.7f, 0.1f, 0.3f, 0.3f, 0.4f};
  const std::vector<std::int32_t> labels{0, 1, 2};
  const auto histograms = score_histograms(probabilities, labels, 3);
  ASSERT_EQ(histograms.size(), 3u);
  EXPECT_DOUBLE_EQ(pooled_auc(histograms).value(), 1);
}

Totals made_totals(std::uint64_t site) {
  const auto data = scored(60, site, false);
  return {.weight = 10 + site, .samples = 60 + site, .loss = 0.25 * double(60 + site),
          .scores = score_histograms(data.probabilities, data.labels, 2)};
}

TEST(Totals, TheSumOfEncodingsIsTheEncodingOfSums) {
  std::vector<std::uint64_t> sum(Totals::words(1));
  std::vector<float> all_scores;
  std::vector<std::int32_t> all_labels;
  for (std::uint64_t site = 0; site < 4; ++site) {
    const auto words = made_totals(site).encode();
    ASSERT_EQ(words.size(), sum.size());
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += words[i];
    const auto data = scored(60, site, false);
    all_scores.insert(all_scores.end(), data.scores.begin(), data.scores.end());
    all_labels.insert(all_labels.end(), data.labels.begin(), data.labels.end());
  }
  const auto totals = Totals::decode(sum, 1).value();
  EXPECT_EQ(totals.weight, 46u);
  EXPECT_EQ(totals.samples, 246u);
  EXPECT_DOUBLE_EQ(totals.mean_loss(), 0.25);
  EXPECT_NEAR(pooled_auc(totals.scores).value(), exact_auc(all_scores, all_labels).value(), 0.02);
}

TEST(Totals, OfAnotherLengthAreRefused) {
  const auto words = made_totals(1).encode();
  EXPECT_TRUE(Totals::decode(words, 1));
  EXPECT_FALSE(Totals::decode(std::span(words).first(words.size() - 1), 1));
  EXPECT_FALSE(Totals::decode(words, 2));
  EXPECT_FALSE(Totals::decode({}, 0));
}

}  // namespace
}  // namespace preceptor::compression
