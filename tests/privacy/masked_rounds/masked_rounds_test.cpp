#include "tests/privacy/masked_rounds/federation.h"

namespace preceptor {
namespace {

using namespace test;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(MaskedRounds, GiveTheModelOfUnmaskedOnes) {
  Federation federation(5);
  const auto masked = federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) {
    EXPECT_EQ(record.outcome, "complete") << record.refused << fmt::format("{}", record.missing.size());
    EXPECT_EQ(record.accepted.size(), 5u);
    EXPECT_NEAR(record.train_loss, 0.5, 1e-5) << "of the masked totals";
    EXPECT_TRUE(record.pooled_auc);
  }
  EXPECT_THAT(federation.stops, IsEmpty());
  const auto unmasked = federation.run(false);
  EXPECT_EQ(hex(masked), hex(unmasked));
}

TEST(MaskedRounds, LetNothingOfASiteOutInTheClear) {
  Federation federation(4);
  federation.run(true);
  for (const auto& message : federation.up) {
    if (const auto* ready = std::get_if<transport::Ready>(&message)) {
      EXPECT_EQ(ready->train_samples, 1u);
    }
    if (const auto* offer = std::get_if<transport::UpdateOffer>(&message)) {
      EXPECT_EQ(offer->samples, 0u);
      EXPECT_EQ(offer->train_loss, 0);
    }
  }
  ASSERT_EQ(federation.reports.size(), 4u);
  for (const auto& [name, report] : federation.reports) {
    EXPECT_EQ(report.verdict, "kept at the site");
    EXPECT_EQ(report.train, 0u);
    EXPECT_FALSE(report.global_auc.defined);
  }
}

/// A site is lost in round 2 when it is about to say (or hear) something; the unmasked run loses it where its
/// update is as much or as little in the sum.
TEST(MaskedRounds, SumExactlyTheSurvivorsWhereverASiteIsLost) {
  struct { const char* what; bool up; int inner; bool counted; } const cases[] = {
      {"its keys", true, 1, false},       {"the roll", false, 2, false},        {"its shares", true, 3, false},
      {"others' shares", false, 3, false}, {"the survivors", false, 4, true},    {"its confirmation", true, 5, true},
      {"the confirmations", false, 6, true}, {"its unmasking shares", true, 7, true}};
  for (const auto& c : cases) {
    Federation federation(5);
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      const bool here = site == "site-3" && up == c.up && inner(message) == c.inner && round_of(message) == 2;
      return here ? Federation::Fate::kLost : Federation::Fate::kArrives;
    };
    const auto masked = federation.run(true);
    ASSERT_EQ(federation.records.size(), 3u);
    EXPECT_EQ(federation.records[1].accepted.size(), c.counted ? 5u : 4u) << c.what;
    EXPECT_NE(federation.records[1].outcome, "void") << c.what << federation.records[1].refused;
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      const bool offers = up && std::holds_alternative<transport::UpdateOffer>(message) && round_of(message) == 2;
      const bool starts = !up && std::holds_alternative<transport::RoundStart>(message) && round_of(message) == 3;
      return site == "site-3" && (c.counted ? starts : offers) ? Federation::Fate::kLost : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(masked), hex(federation.run(false))) << c.what;
  }
}

TEST(MaskedRounds, SurviveABrokenConnectionAtEveryMessage) {
  Federation federation(4);
  federation.publish_sums();
  const auto unbroken = federation.run(true);
  int total = 0;
  federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
    if (site == "site-1" && round_of(message) == 2) ++total;
    return Federation::Fate::kArrives;
  };
  federation.run(true);
  ASSERT_GE(total, 10);
  for (int breaks = 1; breaks <= total; ++breaks) {
    int seen = 0;
    federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
      const bool here = site == "site-1" && round_of(message) == 2 && ++seen == breaks;
      return here ? Federation::Fate::kCut : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(federation.run(true)), hex(unbroken)) << "cut at message " << breaks;
    EXPECT_EQ(federation.records[1].outcome, "complete") << breaks;
  }
}

TEST(MaskedRounds, SurviveADaemonsRestartAtEveryMessageWithTheSameBytes) {
  Federation federation(4);
  federation.options.rounds = 1;
  federation.durable = true;
  const auto unbroken = federation.run(true);
  int total = 0;
  federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
    total += site == "site-1" && round_of(message) == 1;
    return Federation::Fate::kArrives;
  };
  federation.run(true);
  for (int breaks = 1; breaks <= total; ++breaks) {
    int seen = 0;
    std::set<Digest> offered;
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      if (const auto* offer = std::get_if<transport::UpdateOffer>(&message); offer && up && site == "site-1") offered.insert(offer->update);
      const bool here = site == "site-1" && round_of(message) == 1 && ++seen == breaks;
      return here ? Federation::Fate::kRestart : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(federation.run(true)), hex(unbroken)) << "restarted at message " << breaks;
    EXPECT_EQ(federation.records[0].outcome, "complete") << breaks;
    EXPECT_EQ(offered.size(), 1u) << breaks;
  }
}

TEST(MaskedRounds, AreVoidWithAReasonWhenTooFewAreLeft) {
  Federation federation(3);
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    return site == "site-0" && up && inner(message) == 3 && round_of(message) == 1 ? Federation::Fate::kLost : Federation::Fate::kArrives;
  };
  federation.run(true);
  ASSERT_FALSE(federation.records.empty());
  EXPECT_EQ(federation.records[0].outcome, "void");
  EXPECT_THAT(federation.records[0].refused, HasSubstr("2 of 3 members shared; 3 are needed"));
}

TEST(MaskedRounds, ASiteRefusesAnInvitationOnOtherTermsAndIsNamed) {
  struct { const char* rule; std::function<void(privacy::SessionContext&)> change; } const cases[] = {
      {"other terms", [](auto& c) { c.colluders = 1; }},
      {"another plan", [](auto& c) { c.plan = sha256("of another first model"); }},
      {"other terms", [](auto& c) { c.vectors.pop_back(); }},
  };
  for (const auto& [rule, change] : cases) {
    Federation federation(4);
    change(federation.context);
    federation.options.rounds = 1;
    federation.run(true);
    ASSERT_FALSE(federation.records.empty());
    EXPECT_EQ(federation.records[0].outcome, "void");
    ASSERT_EQ(federation.records[0].missing.size(), 4u);
    for (const auto& [site, why] : federation.records[0].missing) EXPECT_THAT(why, HasSubstr(rule));
  }
}

TEST(MaskedRounds, AModelForOneSiteAloneIsRefusedByIt) {
  // The coordinator shows site-2 a model of its own; the invitation, which all share, tells it.
  Federation federation(5);
  federation.tamper = [&](const std::string& site, transport::Message& message) {
    if (auto* start = std::get_if<transport::RoundStart>(&message); start && site == "site-2") start->model = sha256("crafted");
  };
  federation.options.rounds = 1;
  federation.run(true);
  ASSERT_FALSE(federation.records.empty());
  EXPECT_THAT(federation.records[0].missing["site-2"], HasSubstr("another model than the one that this site was given"));
  EXPECT_EQ(federation.records[0].accepted.size(), 4u);
}

TEST(MaskedRounds, ANodesFloorStopsAPlanBelowIt) {
  Federation federation(3);
  federation.limits.k_min = 5;
  federation.options.join_deadline = std::chrono::seconds(1);
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 3u);
  for (const auto& [site, why] : federation.stops) EXPECT_THAT(why, HasSubstr("limits.secure_aggregation.k_min is 5"));
}

}  // namespace
}  // namespace preceptor
