#include "training/metrics.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/random.h"

namespace preceptor::training {
namespace {

/// Probabilities and labels together, for the tests' own use.
struct Set {
  std::vector<float> probabilities;
  std::vector<std::int32_t> labels;
  std::size_t classes = 2;
  operator Predictions() const { return {probabilities, labels, classes}; }
};

/// Two classes, from the probability of class 1.
Set binary(const std::vector<float>& of_one, const std::vector<std::int32_t>& labels) {
  Set set{{}, labels, 2};
  for (const auto p : of_one) set.probabilities.insert(set.probabilities.end(), {1 - p, p});
  return set;
}

/// Scores that tell the classes apart the better, the larger `skill` is; coarse, so that ties
/// occur.
Set drawn(std::size_t images, double skill, std::uint64_t seed, std::uint64_t model = 0) {
  RandomStream labels(seed, "labels"), scores(seed, "scores", {model});
  Set set;
  for (std::size_t i = 0; i < images; ++i) {
    set.labels.push_back(std::int32_t(labels.below(2)));
    const double score = 1 / (1 + std::exp(-(skill * (set.labels.back() - 0.5) + scores.normal())));
    const auto p = float(std::round(score * 32) / 32);
    set.probabilities.insert(set.probabilities.end(), {1 - p, p});
  }
  return set;
}

/// The definition: the share of pairs (positive, negative) that are ranked right, ties half.
double auc_by_pairs(const Set& set, std::size_t positive) {
  double right = 0, pairs = 0;
  for (std::size_t i = 0; i < set.labels.size(); ++i)
    for (std::size_t j = 0; j < set.labels.size(); ++j) {
      if (set.labels[i] != std::int32_t(positive) || set.labels[j] == std::int32_t(positive))
        continue;
      const float p = set.probabilities[i * set.classes + positive],
                  n = set.probabilities[j * set.classes + positive];
      right += p > n ? 1 : p == n ? 0.5 : 0;
      ++pairs;
    }
  return right / pairs;
}

// scikit-learn 1.3, documentation of sklearn.metrics.roc_auc_score's Mann-Whitney example.
TEST(Auc, IsThreeQuartersForTheTextbookExample) {
  EXPECT_DOUBLE_EQ(auc(binary({0.1f, 0.4f, 0.35f, 0.8f}, {0, 0, 1, 1})).value(), 0.75);
}

TEST(Auc, CountsATieAsHalf) {
  EXPECT_DOUBLE_EQ(auc(binary({0.5f, 0.5f}, {0, 1})).value(), 0.5);
  // pairs: (0.7, 0.7) tie, (0.7, 0.2) right, (0.9, 0.7) right, (0.9, 0.2) right
  EXPECT_DOUBLE_EQ(auc(binary({0.7f, 0.2f, 0.7f, 0.9f}, {0, 0, 1, 1})).value(), 3.5 / 4);
}

TEST(Auc, IsOneWhenEveryPositiveStandsAboveAndZeroWhenBelow) {
  EXPECT_DOUBLE_EQ(auc(binary({0.1f, 0.2f, 0.3f}, {0, 0, 1})).value(), 1);
  EXPECT_DOUBLE_EQ(auc(binary({0.1f, 0.2f, 0.3f}, {1, 0, 0})).value(), 0);
}

TEST(Auc, IsTheShareOfPairsThatAreRankedRight) {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const auto set = drawn(150, 1.0, seed);
    EXPECT_NEAR(auc(set).value(), auc_by_pairs(set, 1), 1e-12);
  }
}

TEST(Auc, OfTwoClassesIsThatOfClassOneAlone) {
  // Class 0's column is deliberately not 1 - p: it must not matter.
  const Set set{{0.9f, 0.1f, 0.1f, 0.4f, 0.8f, 0.35f, 0.3f, 0.8f}, {0, 0, 1, 1}, 2};
  EXPECT_DOUBLE_EQ(auc(set).value(), auc_by_pairs(set, 1));
  EXPECT_NE(auc_by_pairs(set, 0), auc_by_pairs(set, 1));
}

TEST(Auc, OfThreeClassesIsTheMeanOfOneAgainstTheRest) {
  const Set set{
      {0.7f, 0.2f, 0.1f, 0.4f, 0.5f, 0.1f, 0.3f, 0.4f, 0.3f, 0.2f, 0.2f, 0.6f, 0.5f, 0.1f, 0.4f},
      {0, 0, 1, 2, 2},
      3};
  EXPECT_NEAR(auc(set).value(),
              (auc_by_pairs(set, 0) + auc_by_pairs(set, 1) + auc_by_pairs(set, 2)) / 3, 1e-12);
}

TEST(Auc, LeavesOutAClassThatDoesNotOccur) {
  const Set set{
      {0.7f, 0.2f, 0.1f, 0.4f, 0.5f, 0.1f, 0.3f, 0.4f, 0.3f, 0.5f, 0.4f, 0.1f}, {0, 0, 1, 1}, 3};
  EXPECT_NEAR(auc(set).value(), (auc_by_pairs(set, 0) + auc_by_pairs(set, 1)) / 2, 1e-12);
}

TEST(Metrics, OfAHandExample) {
  //                              TP    FN    TP    TN    TN    TN    FP
  const auto set = binary({0.9f, 0.3f, 0.6f, 0.2f, 0.1f, 0.4f, 0.8f}, {1, 1, 1, 0, 0, 0, 0});
  const auto metrics = measure(set, 1, 50);
  EXPECT_EQ(metrics.images, 7u);
  EXPECT_DOUBLE_EQ(metrics.accuracy->value, 5.0 / 7);
  EXPECT_DOUBLE_EQ(metrics.sensitivity->value, 2.0 / 3);
  EXPECT_DOUBLE_EQ(metrics.specificity->value, 3.0 / 4);
  EXPECT_DOUBLE_EQ(accuracy(set).value(), 5.0 / 7);
}

TEST(Metrics, OfThreeClassesAreMeansOverTheClasses) {
  const auto sure = [](std::size_t c) {
    return std::vector<float>{c == 0 ? 0.8f : 0.1f, c == 1 ? 0.8f : 0.1f, c == 2 ? 0.8f : 0.1f};
  };
  Set set{{}, {0, 0, 1, 2, 2}, 3};
  for (const std::size_t told : {0, 1, 1, 2, 0}) {
    const auto row = sure(told);
    set.probabilities.insert(set.probabilities.end(), row.begin(), row.end());
  }
  const auto metrics = measure(set, 1, 50);
  EXPECT_DOUBLE_EQ(metrics.accuracy->value, 3.0 / 5);
  EXPECT_DOUBLE_EQ(metrics.sensitivity->value, (1.0 / 2 + 1 + 1.0 / 2) / 3);
  EXPECT_DOUBLE_EQ(metrics.specificity->value, (2.0 / 3 + 3.0 / 4 + 1) / 3);
}

TEST(Metrics, CalibrationErrorOfAHandExample) {
  // Bin of 0.95: two images, one right: |0.95 - 0.5|. Bin of 0.6: two, both right: |0.6 - 1|.
  const auto set = binary({0.95f, 0.95f, 0.6f, 0.6f}, {1, 0, 1, 1});
  EXPECT_NEAR(measure(set, 1, 10).ece->value, 0.5 * 0.45 + 0.5 * 0.4, 1e-6);
  EXPECT_NEAR(measure(binary({1, 1, 0}, {1, 1, 0}), 1, 10).ece->value, 0, 1e-12);
}

TEST(Metrics, OfOneClassOnlySayWhatTheyCanAndNoMore) {
  const auto negatives = measure(binary({0.1f, 0.7f}, {0, 0}), 1, 50);
  EXPECT_FALSE(negatives.auc);
  EXPECT_FALSE(negatives.sensitivity);
  EXPECT_DOUBLE_EQ(negatives.specificity->value, 0.5);
  EXPECT_DOUBLE_EQ(negatives.accuracy->value, 0.5);
  const auto positives = measure(binary({0.1f, 0.7f}, {1, 1}), 1, 50);
  EXPECT_FALSE(positives.auc);
  EXPECT_FALSE(positives.specificity);
  EXPECT_FALSE(auc(binary({0.1f, 0.7f}, {1, 1})));
}

TEST(Metrics, OfNoImageAreUndefined) {
  const auto metrics = measure(binary({}, {}), 1);
  EXPECT_EQ(metrics.images, 0u);
  EXPECT_FALSE(metrics.auc || metrics.accuracy || metrics.sensitivity || metrics.specificity ||
               metrics.ece);
  EXPECT_FALSE(compare(binary({}, {}), binary({}, {}), 1));
}

TEST(Metrics, AProbabilityThatIsNotANumberCountsAsNone) {
  RandomStream random(1, "nan");
  auto broken = drawn(500, 2, 1);
  auto none = broken;
  for (std::size_t i = 0; i < 500; ++i)
    if (random.below(3) == 0)
      for (int c = 0; c < 2; ++c)
        broken.probabilities[2 * i + std::size_t(c)] = NAN,
                                     none.probabilities[2 * i + std::size_t(c)] = 0;
  const auto a = measure(broken, 1, 20), b = measure(none, 1, 20);
  EXPECT_EQ(a.auc->value, b.auc->value);
  EXPECT_EQ(a.accuracy->value, b.accuracy->value);
  EXPECT_EQ(a.ece->value, b.ece->value);
}

TEST(Bootstrap, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const auto set = drawn(100, 1, 1);
  const auto a = measure(set, 5), b = measure(set, 5), c = measure(set, 6);
  EXPECT_EQ(a.auc->low, b.auc->low);
  EXPECT_EQ(a.auc->high, b.auc->high);
  EXPECT_NE(a.auc->low, c.auc->low);
  EXPECT_EQ(a.auc->value, c.auc->value);
}

TEST(Bootstrap, SurroundsTheValueAndNarrowsWithMoreImages) {
  const auto few = measure(drawn(50, 1, 1), 1).auc.value(),
             many = measure(drawn(2000, 1, 1), 1, 300).auc.value();
  EXPECT_LT(few.low, few.value);
  EXPECT_GT(few.high, few.value);
  EXPECT_LT(many.high - many.low, 0.4 * (few.high - few.low));
}

// 300 sets of 100 images whose true accuracy is 0.8. A 95 % percentile interval of so few images
// covers about 93 %; of 300 trials the deviation is 1.5 %. Bounds at more than three deviations:
// false alarm < 1 %.
TEST(Bootstrap, CoversTheTruthAboutNineteenTimesInTwenty) {
  int covered = 0;
  for (std::uint64_t trial = 0; trial < 300; ++trial) {
    RandomStream random(trial, "coverage");
    std::vector<float> p;
    for (int i = 0; i < 100; ++i) p.push_back(random.uniform() < 0.8 ? 0.9f : 0.1f);
    const auto interval =
        measure(binary(p, std::vector<std::int32_t>(100, 1)), trial, 200).accuracy.value();
    covered += interval.low <= 0.8 && 0.8 <= interval.high;
  }
  EXPECT_GE(covered, 0.88 * 300);
  EXPECT_LE(covered, 0.985 * 300);
}

TEST(PairedTest, OfAModelAgainstItselfFindsNothing) {
  const auto set = drawn(120, 1, 1);
  const auto test = compare(set, set, 1).value();
  EXPECT_EQ(test.metric, "auc");
  EXPECT_EQ(test.difference.value, 0);
  EXPECT_EQ(test.difference.low, 0);
  EXPECT_EQ(test.difference.high, 0);
  EXPECT_EQ(test.p_value, 1);
}

TEST(PairedTest, FindsAClearlyBetterModelAndTurnsRoundWhenTheyAreSwapped) {
  const auto weak = drawn(200, 0.3, 1, 1), strong = drawn(200, 3, 1, 2);
  const auto better = compare(weak, strong, 1).value(), worse = compare(strong, weak, 1).value();
  EXPECT_LT(better.p_value, 0.05);
  EXPECT_GT(better.difference.low, 0);
  EXPECT_NEAR(better.difference.value, auc(strong).value() - auc(weak).value(), 1e-12);
  EXPECT_LT(worse.p_value, 0.05);
  EXPECT_LT(worse.difference.high, 0);
  EXPECT_GT(better.p_value, 0) << "no finite bootstrap shows p = 0";
}

// Two models of equal skill, 200 times: at p < 0.05 about 10 false findings, deviation 3.1. The
// bounds are more than four deviations away: false alarm < 1e-4.
TEST(PairedTest, FindsSomethingInEqualModelsAboutOnceInTwenty) {
  int found = 0;
  for (std::uint64_t trial = 0; trial < 200; ++trial)
    found += compare(drawn(100, 1, trial, 1), drawn(100, 1, trial, 2), trial, 300)->p_value < 0.05;
  EXPECT_LE(found, 23);
  EXPECT_GE(found, 1);
}

TEST(PairedTest, FallsBackToAccuracyWhereAucIsNotDefined) {
  const std::vector<std::int32_t> ones(40, 1);
  const auto test = compare(binary(std::vector<float>(40, 0.2f), ones),
                            binary(std::vector<float>(40, 0.8f), ones), 1)
                        .value();
  EXPECT_EQ(test.metric, "accuracy");
  EXPECT_EQ(test.difference.value, 1);
  EXPECT_LT(test.p_value, 0.05);
}

}  // namespace
}  // namespace preceptor::training
