#include "tests/coordinator/hall.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using namespace transport;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
using namespace test;

TEST(Coordinator, WaitsForTheSitesItWasPromisedAndNoLongerThanTheJoinDeadline) {
  Hall hall({.rounds = 1, .sites = 3, .quorum = 2});
  hall.connect("amber");
  hall.connect("birch");
  hall.settle();
  EXPECT_THAT(hall.machine->status(), HasSubstr("gathering"));
  EXPECT_EQ(hall.machine->next_deadline(), Time(50s));
  hall.now = 50s - 1ms;
  EXPECT_THAT(hall.hear(Tick{}), IsEmpty());
  hall.now = 50s;
  EXPECT_THAT(sent<RoundStart>(hall.hear(Tick{})), SizeIs(2));
  EXPECT_EQ(hall.machine->next_deadline(), Time(150s));
}

TEST(Coordinator, GivesUpWhenTooFewSitesComeBeforeTheJoinDeadline) {
  Hall hall({.rounds = 1, .quorum = 2});
  hall.connect("amber");
  hall.run();
  EXPECT_FALSE(hall.finished->completed);
  EXPECT_THAT(hall.finished->reason, HasSubstr("fewer than federation.quorum = 2"));
  EXPECT_EQ(hall.sites.at("amber").goodbye, hall.finished->reason);
}

TEST(Coordinator, WaitsAnotherJoinDeadlineForSitesThatVanishBetweenRoundsAndThenGivesUp) {
  for (const bool back : {true, false}) {
    Hall hall({.rounds = 2, .quorum = 1});
    hall.connect("amber");
    hall.run_rounds(1);
    hall.disconnect("amber", "power cut");
    hall.now = 1000s;
    hall.settle();
    EXPECT_EQ(hall.machine->next_deadline(), Time(1050s));
    hall.now = 1050s - 1ms;
    hall.hear(Tick{});
    ASSERT_FALSE(hall.finished);
    if (back) hall.connect("amber");
    hall.run();
    EXPECT_EQ(hall.finished->completed, back);
    EXPECT_THAT(hall.records, SizeIs(back ? 2 : 1));
  }
}

TEST(Coordinator, ASiteWithoutImagesIsNeitherAskedNorAwaited) {
  Hall hall({.rounds = 1, .quorum = 1});
  hall.connect("empty", 0);
  hall.settle();
  EXPECT_THAT(hall.machine->status(), HasSubstr("gathering"));
  hall.connect("amber");
  hall.run();
  EXPECT_THAT(hall.records.at(0).accepted, ElementsAre("amber"));
  EXPECT_EQ(hall.finished->reason, "every site reported");
}

TEST(Coordinator, ALateJoinerIsWelcomedAndTakesPartInTheNextRound) {
  Hall hall({.rounds = 2, .quorum = 1});
  hall.connect("amber").lazy = true;  // holds round 1 open
  hall.settle();
  hall.connect("birch");
  hall.settle();
  hall.sites.at("amber").lazy = false;
  hall.disconnect("amber", "restarted");
  hall.connect("amber");
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(2));
  EXPECT_THAT(hall.records[0].accepted, ElementsAre("amber"));
  EXPECT_THAT(hall.records[1].accepted, ElementsAre("amber", "birch"));
  EXPECT_THAT(hall.sites.at("birch").accepted, ElementsAre(2));
  EXPECT_THAT(hall.finished->reports, SizeIs(2));
}

TEST(Coordinator, ASiteThatComesInTheVerdictPhaseIsAskedForItsVerdict) {
  Hall hall({.rounds = 1, .quorum = 1});
  hall.connect("amber");
  hall.run_rounds(1);
  hall.evaluating = false;
  hall.hear(Evaluated{});
  hall.hear(Came{"birch"});
  EXPECT_THAT(sent<Welcome>(hall.hear(Said{"birch", Hello{}}), "birch"), SizeIs(1));
  const auto effects = hall.hear(Said{"birch", Ready{5}});
  ASSERT_THAT(sent<Finish>(effects, "birch"), SizeIs(1));
  EXPECT_EQ(sent<Finish>(effects, "birch")[0].model, sha256(*hall.machine->model()));
}

TEST(Coordinator, GoesOnWithoutASiteThatVanishes) {
  Hall hall({.rounds = 3, .sites = 3, .quorum = 2});
  for (const auto& name : kThree) hall.connect(name);
  hall.run_rounds(1);
  hall.disconnect("cedar", "idle for 60 s");
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(3));
  EXPECT_THAT(hall.records[2].accepted, ElementsAre("amber", "birch"));
  EXPECT_EQ(hall.records[2].outcome, "complete") << "it was not asked any more";
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_EQ(hall.finished->reason, "report_deadline passed") << "it may have come back to report";
  EXPECT_THAT(hall.finished->reports, SizeIs(2));
}

TEST(Coordinator, NamesASiteThatVanishesInMidRound) {
  Hall hall({.rounds = 1, .sites = 3, .quorum = 2});
  for (const auto& name : kThree) hall.connect(name);
  hall.sites.at("cedar").lazy = true;
  hall.settle();
  hall.disconnect("cedar", "idle for 60 s");
  EXPECT_THAT(hall.records, IsEmpty()) << "it may come back until the deadline";
  hall.tick();
  EXPECT_EQ(hall.now, 100s);
  ASSERT_THAT(hall.records, SizeIs(1));
  EXPECT_EQ(hall.records[0].outcome, "partial");
  EXPECT_THAT(hall.records[0].missing, ElementsAre(Pair("cedar", "disconnected: idle for 60 s")));
}

TEST(Coordinator, ASiteThatComesBackInMidRoundIsInvitedAgain) {
  Hall hall({.rounds = 1, .quorum = 3});
  for (const auto& name : kThree) hall.connect(name);
  hall.sites.at("cedar").lazy = true;
  hall.settle();
  hall.disconnect("cedar", "power cut");
  hall.sites.at("cedar").lazy = false;
  hall.connect("cedar");
  hall.run();
  EXPECT_EQ(hall.records.at(0).outcome, "complete");
  EXPECT_EQ(hall.finished->reason, "every site reported");
}

TEST(Coordinator, AVoidRoundLeavesTheModelAloneAndTheNextMaySucceed) {
  Hall hall({.rounds = 3, .quorum = 2, .max_void_rounds = 2});
  hall.connect("amber");
  hall.connect("birch").lazy = true;
  hall.run_rounds(1);
  EXPECT_EQ(hall.records[0].outcome, "void");
  EXPECT_EQ(hall.models[0], hall.initial);
  hall.sites.at("birch").lazy = false;
  hall.run_rounds(2);
  EXPECT_EQ(hall.records[1].outcome, "complete");
  EXPECT_NE(*hall.models[1], *hall.initial);
  hall.sites.at("birch").lazy = true;
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(3));
  EXPECT_EQ(hall.records[2].outcome, "void") << "the first of its row, so the job goes on";
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_EQ(hall.machine->model(), hall.models[1]);
}

TEST(Coordinator, GivesUpAfterTooManyVoidRoundsInARow) {
  Hall hall({.rounds = 9, .quorum = 1, .max_void_rounds = 3});
  hall.connect("amber").lazy = true;
  hall.run();
  EXPECT_FALSE(hall.finished->completed);
  EXPECT_THAT(hall.finished->reason, HasSubstr("3 rounds in a row without a quorum"));
  EXPECT_THAT(hall.records, SizeIs(3)) << "the last void round is recorded too";
  EXPECT_EQ(hall.now, 300s);
  EXPECT_EQ(hall.machine->model(), hall.initial);
  EXPECT_FALSE(hall.machine->next_deadline());
}

TEST(Coordinator, APoisonedSiteLosesItsPlaceAndTheRoundGoesOn) {
  Hall with({.rounds = 2, .sites = 3, .quorum = 2}), without({.rounds = 2, .quorum = 2});
  for (const auto* name : {"amber", "birch"}) with.connect(name), without.connect(name);
  with.connect("mallory").poisoned = true;
  with.run();
  without.run();
  for (const auto& record : with.records) {
    EXPECT_EQ(record.outcome, "partial");
    EXPECT_THAT(record.missing, ElementsAre(Pair("mallory", HasSubstr("not finite"))));
  }
  EXPECT_THAT(with.sites.at("mallory").refused, Contains(HasSubstr("not finite")));
  EXPECT_EQ(*with.machine->model(), *without.machine->model());
}

TEST(Coordinator, ASiteThatClaimsMoreImagesThanASumCanHoldIsCutAndMakesNoRoundVoid) {
  Hall hall({.rounds = 1, .sites = 2, .quorum = 1});
  hall.connect("amber");
  hall.connect("mallory", ~std::uint64_t{0} / 2);
  hall.run();
  ASSERT_THAT(hall.cuts, SizeIs(1));
  EXPECT_EQ(hall.cuts[0].peer, "mallory");
  EXPECT_THAT(hall.cuts[0].reason, HasSubstr("training images"));
  EXPECT_EQ(hall.records.at(0).outcome, "complete");
  EXPECT_THAT(hall.records[0].accepted, ElementsAre("amber"));
}

}  // namespace
}  // namespace preceptor::coordinator
