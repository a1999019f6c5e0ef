#include <gmock/gmock.h>

#include <map>
#include <numeric>
#include <set>

#include "data/data.h"
#include "data/deal.h"
#include "data/manifest.h"
#include "tests/data/made.h"

namespace preceptor::data {
namespace {

using testing::Each;
using testing::Ge;
using testing::HasSubstr;

PartitionOptions options_of(const std::string& method, int sites, double alpha = 0.5) {
  PartitionOptions options;
  options.method = method;
  options.sites = sites;
  options.alpha = alpha;
  return options;
}

Federation dealt(Source source, const PartitionOptions& options, std::uint64_t seed = 1) {
  auto federation = federate(std::move(source), options, seed);
  EXPECT_TRUE(federation) << federation.error().message;
  return federation ? *std::move(federation) : Federation{};
}

using Bag = std::multiset<std::vector<std::uint8_t>>;

void add(Bag& bag, const Dataset& dataset) {
  for (std::size_t i = 0; i < dataset.size(); ++i) {
    const auto image = dataset.image(i);
    bag.emplace(image.begin(), image.end());
  }
}

Bag bag_of(const Dataset& dataset) {
  Bag bag;
  add(bag, dataset);
  return bag;
}

// Every image that someone owns; the consortium's test is a view of the sites' and left out.
Bag owned(const Federation& federation) {
  Bag bag;
  add(bag, federation.consortium.train);
  add(bag, federation.consortium.validation);
  for (const auto& site : federation.sites)
    for (const auto* part : {&site.data.train, &site.data.validation, &site.data.test})
      add(bag, *part);
  return bag;
}

// 1200 + 200 + 300 images of three classes with an official split and four sites by turns.
Source official() {
  auto source = made_source(1200, 3, Split::kTrain);
  join(source, made_source(200, 3, Split::kValidation, 10000));
  join(source, made_source(300, 3, Split::kTest, 20000));
  source.site_names = {"north", "east", "south", "west"};
  for (std::size_t i = 0; i < source.sites.size(); ++i) source.sites[i] = std::int32_t(i % 4);
  return source;
}

Source unsplit() {
  auto source = official();
  for (auto& split : source.splits) split = Split::kUnassigned;
  return source;
}

class EveryMethod : public testing::TestWithParam<const char*> {
 protected:
  PartitionOptions options_ = options_of(GetParam(), 4);
};

TEST_P(EveryMethod, DealsEachImageOfAnOfficialSplitExactlyOnce) {
  options_.consortium = 0.2;
  const auto source = official();
  const auto federation = dealt(source, options_);
  EXPECT_EQ(owned(federation), bag_of(source.images));
  std::size_t train = federation.consortium.train.size();
  for (const auto& site : federation.sites) train += site.data.train.size();
  EXPECT_EQ(train, 1200u);
  EXPECT_EQ(federation.consortium.test.size(), 300u);
}

TEST_P(EveryMethod, DealsEachUnsplitImageExactlyOnce) {
  options_.consortium = 0.1;
  const auto source = unsplit();
  EXPECT_EQ(owned(dealt(source, options_)), bag_of(source.images));
}

TEST_P(EveryMethod, HoldsOutTheWantedShares) {
  for (const auto& site : dealt(unsplit(), options_).sites) {
    const double all =
        double(site.data.train.size() + site.data.validation.size() + site.data.test.size());
    EXPECT_NEAR(double(site.data.validation.size()) / all, 0.15, 0.04) << site.name;
    EXPECT_NEAR(double(site.data.test.size()) / all, 0.25, 0.04) << site.name;
  }
}

TEST_P(EveryMethod, GivesASiteTheSameClassSharesInEverySplit) {
  for (const auto& site : dealt(official(), options_).sites) {
    const auto train = site.data.train.class_counts(), test = site.data.test.class_counts();
    for (std::size_t c = 0; c < 3; ++c)  // of each class 400 train, 100 test; off by less than one
      EXPECT_NEAR(double(test[c]), double(train[c]) / 4, 1.26) << site.name << " class " << c;
  }
}

TEST_P(EveryMethod, GivesTheSameForTheSameSeedAndAnotherForAnother) {
  const auto a = dealt(unsplit(), options_, 5), b = dealt(unsplit(), options_, 5),
             c = dealt(unsplit(), options_, 6);
  ASSERT_EQ(a.sites.size(), 4u);
  for (std::size_t s = 0; s < 4; ++s)
    EXPECT_EQ(content_hash(a.sites[s].data), content_hash(b.sites[s].data));
  EXPECT_NE(content_hash(a.sites[0].data), content_hash(c.sites[0].data));
}

TEST_P(EveryMethod, MakesTheConsortiumsTestTheUnionOfTheSites) {
  const auto federation = dealt(unsplit(), options_);
  Bag tests;
  for (const auto& site : federation.sites) add(tests, site.data.test);
  EXPECT_EQ(bag_of(federation.consortium.test), tests);
}

TEST_P(EveryMethod, TakesTheConsortiumsShareFromEachClassAlike) {
  options_.consortium = 0.25;
  const auto federation = dealt(official(), options_);
  EXPECT_THAT(federation.consortium.train.class_counts(),
              Each(testing::AllOf(Ge(99u), testing::Le(101u))));
  EXPECT_EQ(federation.consortium.validation.size(), 50u);
  for (const auto& site : federation.sites) EXPECT_GT(site.data.train.size(), 0u);
}

TEST_P(EveryMethod, NamesItsSites) {
  const auto federation = dealt(official(), options_);
  EXPECT_EQ(federation.sites[0].name, options_.method == "site" ? "north" : "site-1");
  EXPECT_EQ(federation.sites[3].name, options_.method == "site" ? "west" : "site-4");
}

TEST_P(EveryMethod, RefusesASiteUnderTheMinimum) {
  options_.minimum = 301;
  const auto federation = federate(official(), options_, 1);
  ASSERT_FALSE(federation);
  EXPECT_EQ(federation.error().code, Code::kInvalid);
  EXPECT_THAT(federation.error().message, HasSubstr("minimum"));
}

INSTANTIATE_TEST_SUITE_P(Partition, EveryMethod,
                         testing::Values("site", "iid", "dirichlet", "quantity"),
                         [](const auto& method) { return std::string(method.param); });

TEST(Partition, KeepsTheSourcesOwnSites) {
  const auto federation = dealt(official(), options_of("site", 99));
  ASSERT_EQ(federation.sites.size(), 4u);
  for (const auto& site : federation.sites) EXPECT_EQ(site.data.train.size(), 300u);
}

TEST(Partition, WantsASiteColumnForTheMethodSite) {
  const auto none = federate(made_source(100, 2), options_of("site", 2), 1);
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message, HasSubstr("names no sites"));
  auto source = official();
  source.sites[7] = -1;
  const auto gap = federate(source, options_of("site", 2), 1);
  ASSERT_FALSE(gap);
  EXPECT_THAT(gap.error().message, HasSubstr("1 of 1700 images name no site"));
}

TEST(Partition, MakesIidSitesOfEqualSizeAndClasses) {
  for (const auto& site : dealt(official(), options_of("iid", 7)).sites) {
    EXPECT_NEAR(double(site.data.train.size()), 1200.0 / 7, 1);
    for (const auto count : site.data.train.class_counts())
      EXPECT_NEAR(double(count), 400.0 / 7, 1);
  }
}

TEST(Partition, MakesSitesOfUnequalSizeButEqualClassesByQuantity) {
  const auto federation = dealt(official(), options_of("quantity", 6, 0.5));
  std::size_t least = 1200, most = 0;
  for (const auto& site : federation.sites) {
    least = std::min(least, site.data.train.size());
    most = std::max(most, site.data.train.size());
    for (const auto count : site.data.train.class_counts())
      EXPECT_NEAR(double(count), double(site.data.train.size()) / 3, 1.01);
  }
  EXPECT_GT(most, 3 * least);
}

// Mean over sites of the total-variation distance to the whole set's class shares.
double class_skew(const Federation& federation) {
  double skew = 0;
  for (const auto& site : federation.sites)
    for (const auto count : site.data.train.class_counts())
      skew += std::abs(double(count) / double(site.data.train.size()) - 1.0 / 3) / 2;
  return skew / double(federation.sites.size());
}

TEST(Partition, SkewsClassesMoreWithASmallerAlpha) {
  const auto at = [](double alpha) {
    return class_skew(dealt(official(), options_of("dirichlet", 8, alpha)));
  };
  EXPECT_GT(at(0.1), at(1.0));
  EXPECT_GT(at(1.0), at(100.0));
  EXPECT_LT(at(1000.0), 0.05);
}

TEST(Partition, HonoursTheMinimumByDrawingAgain) {
  for (const auto* method : {"dirichlet", "quantity"})
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      auto options = options_of(method, 10, 0.2);
      options.minimum = 30;
      for (const auto& site : dealt(official(), options, seed).sites)
        EXPECT_GE(site.data.train.size(), 30u);
    }
}

TEST(Partition, GivesUpClearlyWhenNoDrawSettles) {
  auto options = options_of("quantity", 4, 1e-3);
  options.minimum = 299;
  const auto federation = federate(official(), options, 1);
  ASSERT_FALSE(federation);
  EXPECT_EQ(federation.error().code, Code::kInvalid);
  EXPECT_THAT(federation.error().message, HasSubstr("raise alpha"));
}

TEST(Partition, CopesWithFourThousandSites) {
  auto options = options_of("dirichlet", 4096, 0.5);
  options.minimum = 4;
  const auto federation = dealt(made_source(100'000, 10), options);
  ASSERT_EQ(federation.sites.size(), 4096u);
  for (const auto& site : federation.sites) {
    EXPECT_GE(site.data.train.size(), 4u);
    EXPECT_GE(site.data.validation.size(), 1u);
    EXPECT_GE(site.data.test.size(), 1u);
  }
  EXPECT_THAT(federation.report.notes, testing::IsEmpty());
}

TEST(Partition, NotesSitesThatGetNoTest) {
  auto source = made_source(400, 2, Split::kTrain);
  join(source, made_source(50, 2, Split::kValidation, 1000));
  join(source, made_source(3, 2, Split::kTest, 2000));
  const auto federation = dealt(source, options_of("iid", 5));
  EXPECT_THAT(federation.report.notes, testing::Contains("2 of 5 sites have no test images"));
}

TEST(Partition, HoldsOutOfTrainingWhatASplitSourceLacks) {
  auto source = made_source(1000, 2, Split::kTrain);
  join(source, made_source(100, 2, Split::kTest, 5000));
  const auto federation = dealt(source, options_of("iid", 2));
  EXPECT_EQ(federation.sites[0].data.validation.size(), 75u);
  EXPECT_EQ(federation.sites[0].data.test.size(), 50u);
  EXPECT_THAT(federation.report.notes, testing::Contains(HasSubstr("no validation part")));
}

TEST(Partition, RefusesSharesThatLeaveNothingToTrainOn) {
  auto options = options_of("iid", 2);
  options.validation = options.test = 0.5;
  const auto federation = federate(unsplit(), options, 1);
  ASSERT_FALSE(federation);
  EXPECT_THAT(federation.error().message, HasSubstr("leave nothing to train on"));
}

TEST(Duplicates, StayInTestThenValidationThenTraining) {
  auto source = made_source(200, 2, Split::kTrain);           // 0 … 199
  join(source, made_source(60, 2, Split::kValidation, 190));  // shares 190 … 199 with training
  join(source, made_source(60, 2, Split::kTest, 240));        // shares 240 … 249 with validation
  join(source, made_source(4, 2, Split::kTrain, 298));        // shares 298, 299 with test
  const auto federation = dealt(source, options_of("iid", 2));
  EXPECT_EQ(federation.report.duplicates, 10u + 10u + 2u);
  const auto all = owned(federation);
  EXPECT_EQ(all.size(), 324u - 22u);
  EXPECT_EQ(std::set(all.begin(), all.end()).size(), all.size());
  EXPECT_EQ(federation.consortium.test.size(), 60u);
  EXPECT_THAT(federation.report.notes, testing::Contains(HasSubstr("22 images (22 distinct)")));
}

TEST(Duplicates, WithinOneSplitAllStay) {
  auto source = official();
  join(source, made_source(3, 3, Split::kTrain));
  const auto federation = dealt(source, options_of("iid", 2));
  EXPECT_EQ(federation.report.duplicates, 0u);
  EXPECT_EQ(owned(federation).size(), 1703u);
}

TEST(Duplicates, OfUnsplitImagesOnlyOneStays) {
  auto source = made_source(200, 2);
  join(source, made_source(50, 2));
  const auto federation = dealt(source, options_of("iid", 2));
  EXPECT_EQ(federation.report.duplicates, 50u);
  EXPECT_EQ(owned(federation).size(), 200u);
}

TEST(Duplicates, WithAnotherClassAreNoted) {
  auto source = official();
  auto odd = made_source(1, 3, Split::kTrain);
  odd.images.labels[0] = 2;
  join(source, odd);
  EXPECT_THAT(dealt(source, options_of("iid", 2)).report.notes,
              testing::Contains("1 images occur with more than one class"));
}

TEST(Apportion, NeverStraysByOneAndUsesAll) {
  const Strata available{7, 100, 0, 13, 1};
  const Weights weights(5, {0.5, 0.3, 0.2, 0});
  const auto counts = apportion(available, weights);
  for (std::size_t c = 0; c < available.size(); ++c) {
    EXPECT_EQ(std::accumulate(counts[c].begin(), counts[c].end(), std::size_t{0}), available[c]);
    EXPECT_EQ(counts[c][3], 0u);
    for (std::size_t p = 0; p < 4; ++p)
      EXPECT_LT(std::abs(double(counts[c][p]) - double(available[c]) * weights[c][p]), 1.0);
  }
}

TEST(Apportion, CarriesRoundingOverStrata) {
  const auto counts = apportion(Strata(100, 1), Weights(100, {1, 1, 2}));
  EXPECT_THAT(part_totals(counts), testing::ElementsAre(25, 25, 50));
}

TEST(Apportion, FillsEmptyPartsWhileThereAreImages) {
  const Weights weights{{8, 1, 1}, {8, 1, 3}};
  Counts counts{{3, 0, 0}, {1, 0, 0}};
  EXPECT_EQ(fill_empty_parts(counts, weights), 0u);
  EXPECT_THAT(part_totals(counts), testing::ElementsAre(2, 1, 1));
  Counts few{{2, 0, 0}, {0, 0, 0}};
  EXPECT_EQ(fill_empty_parts(few, weights), 1u);
}

}  // namespace
}  // namespace preceptor::data
