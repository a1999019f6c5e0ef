#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "tests/privacy/masked_rounds/federation.h"

namespace preceptor {
namespace {

using namespace test;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(MaskedRounds, EverySiteMakesTheNextModelFromThePublishedSum) {
  Federation federation(5);
  federation.publish_sums();
  const auto made = federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.refused;
  EXPECT_THAT(federation.stops, IsEmpty());
  EXPECT_EQ(federation.whole, 5) << "the first model; the others are made";
  EXPECT_EQ(hex(made), hex(federation.run(false))) << "also without masks";
  Federation fetching(5);
  EXPECT_EQ(hex(made), hex(fetching.run(true)));
}

/// I1, I9 and I12 at once: whoever is lost at whatever message, the coordinator and every site that is left have the
/// model of plain addition over the survivors.
RC_GTEST_PROP(MaskedRounds, MakeTheModelOfPlainAdditionAtEverySiteWhoeverIsLostWhen, ()) {
  const auto n = *rc::gen::inRange(3, 8);
  const auto f = *rc::gen::inRange(0, 2);
  Federation federation(n);
  federation.publish_sums();
  federation.context.colluders = federation.expected.colluders = privacy::threshold_of(n, f) <= n ? f : 0;
  std::map<std::string, int> left;  // messages until a site is lost
  for (int lost = *rc::gen::inRange(0, n); lost > 0; --lost)
    left[fmt::format("site-{}", *rc::gen::inRange(0, n))] = *rc::gen::inRange(1, 60);
  federation.fate = [&](const std::string& site, bool, const transport::Message&) {
    const auto due = left.find(site);
    return due != left.end() && --due->second <= 0 ? Federation::Fate::kLost : Federation::Fate::kArrives;
  };
  const auto made = federation.run(true);
  for (const auto& [site, why] : federation.stops) RC_ASSERT(why.find("published") == std::string::npos);  // too few are left at most
  const auto of = [&](const char* outcome) { return std::ranges::count(federation.records, outcome, &RoundRecord::outcome); };
  RC_CLASSIFY(of("complete") == 3, "all rounds complete");
  RC_CLASSIFY(of("partial") > 0, "a partial round");
  RC_CLASSIFY(of("void") > 0, "a void round");
  RC_ASSERT(federation.whole <= n);
  RC_ASSERT(hex(made) == hex(federation.replayed()));
  for (const auto& record : federation.records) RC_ASSERT(record.outcome != "void" || !record.refused.empty() || int(record.accepted.size()) < 3);
}

TEST(MaskedRounds, AModelThatThePublishedSumDoesNotMakeEndsEverySitesPart) {
  Federation federation(5);
  federation.publish_sums();
  federation.publish = [](std::optional<Bytes> truth) {  // and trains on with a model of its own
    (*truth)[0] ^= std::byte{1};
    return truth;
  };
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 5u);
  for (const auto& [site, why] : federation.stops)
    EXPECT_THAT(why, HasSubstr("not what its published sums make of this site's: another hash")) << site;
  EXPECT_EQ(federation.records[0].outcome, "complete");
  for (std::size_t r = 1; r < federation.records.size(); ++r) EXPECT_TRUE(federation.records[r].accepted.empty()) << r;
}

TEST(MaskedRounds, AModelThatNoSumIsPublishedForEndsEverySitesPart) {
  Federation federation(5);
  federation.publish_sums();
  federation.publish = [](std::optional<Bytes>) { return std::nullopt; };
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 5u);
  for (const auto& [site, why] : federation.stops) EXPECT_THAT(why, HasSubstr("no published sum leads from this site's model of round 1")) << site;
}

TEST(MaskedRounds, AModelThatNobodyCouldMakeIsNeverSummed) {
  // The coordinator waits until every site has lost its model.
  Federation federation(5);
  federation.publish_sums();
  federation.options.max_void_rounds = 2;
  std::set<std::string> reasons;
  auto all = restarts({{"site-0", 2}, {"site-1", 2}, {"site-2", 2}, {"site-3", 2}, {"site-4", 2}});
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    if (const auto* refused = std::get_if<transport::Refused>(&message); refused && up) reasons.insert(refused->reason);
    return all(site, up, message);
  };
  federation.run(true);
  EXPECT_EQ(federation.records[0].outcome, "complete");
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto r : {1, 2}) EXPECT_EQ(federation.records[std::size_t(r)].outcome, "void");
  ASSERT_EQ(reasons.size(), 1u);
  EXPECT_THAT(*reasons.begin(), HasSubstr("this node could not make the model itself, and 0 others did; more than 0 are needed"));
}

TEST(MaskedRounds, MoveTheModelByTheServersRateAtEverySite) {
  Federation federation(4);
  federation.publish_sums();
  federation.options.learning_rate = 0.5;
  const auto made = federation.run(true);
  EXPECT_EQ(federation.whole, 4);
  EXPECT_THAT(federation.stops, IsEmpty());
  EXPECT_EQ(hex(made), hex(federation.run(false)));
}

TEST(MaskedRounds, SitesThatForgotTheirModelsRelyOnOthersAndThenVouchAgain) {
  // Nothing is kept in files. In the end no site has a model that it made from the first one by itself.
  Federation federation(4);
  federation.publish_sums();
  federation.options.rounds = 7;
  federation.fate = restarts({{"site-0", 2}, {"site-1", 3}, {"site-2", 4}, {"site-3", 5}});
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 7u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.round << ": " << record.refused;
  EXPECT_EQ(federation.whole, 4 + 4);
  EXPECT_THAT(federation.stops, IsEmpty());
}

TEST(MaskedRounds, SitesThatAllRestartAtOnceStillHaveTheirModels) {
  Federation federation(4);
  federation.publish_sums();
  federation.durable = true;
  federation.fate = restarts({{"site-0", 2}, {"site-1", 2}, {"site-2", 2}, {"site-3", 2}});
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.round << ": " << record.refused;
  EXPECT_EQ(federation.whole, 4) << "none is fetched again";
}

TEST(MaskedRounds, AnUpdateOfOneModelIsNeverMaskedForTheSessionOfAnother) {
  // Keys and shares of round 2 are exchanged for the true model; then site-2 alone is told of another, which it has:
  // were it to train that one, its masks would cancel, and others would vouch for it.
  Federation federation(5);
  federation.publish_sums();
  bool shared = false;
  std::optional<transport::RoundStart> first;
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    const bool fetches = site == "site-2" && up && std::holds_alternative<transport::Fetch>(message);
    return fetches && first && !shared ? Federation::Fate::kLater : Federation::Fate::kArrives;
  };
  federation.inject = [&](const std::string& site, const transport::Message& behind) -> std::vector<transport::Message> {
    if (const auto* start = std::get_if<transport::RoundStart>(&behind); start && site == "site-2" && start->round == 1) first = *start;
    if (site != "site-2" || inner(behind) != 3 || round_of(behind) != 2 || shared) return {};
    shared = true;
    auto crafted = *first;
    crafted.round = 2;
    return {crafted};
  };
  federation.options.rounds = 2;
  shared = true;  // round 1 is honest
  const auto honest = federation.inject;
  federation.inject = [&](const std::string& site, const transport::Message& behind) {
    if (const auto* start = std::get_if<transport::RoundStart>(&behind); start && start->round == 2) shared = false;
    return honest(site, behind);
  };
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 2u);
  EXPECT_TRUE(shared);
  EXPECT_THAT(federation.records[1].missing["site-2"], HasSubstr("another model than the one that this site was given"));
  EXPECT_EQ(federation.records[1].accepted.size(), 4u);
}

TEST(MaskedRounds, MoreSitesThanASumHasRoomForAreAskedInTurnByNameSoThatModelsCanBeMade) {
  Federation federation(9);  // the ring is for eight
  federation.publish_sums();
  federation.options.rounds = 5;
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 5u);
  for (const auto& record : federation.records) EXPECT_EQ(record.accepted.size(), 8u) << record.refused;
}

}  // namespace
}  // namespace preceptor
