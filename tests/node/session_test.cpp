#include "tests/node/session_fixture.h"

namespace preceptor::node {
namespace {

using namespace transport;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using namespace test;

TEST_F(SessionTest, GoesFromHelloToReport) {
  const auto hello = step(Connected{});
  ASSERT_THAT(hello, SizeIs(1));
  EXPECT_THAT(sent<Hello>(hello), SizeIs(1));
  EXPECT_EQ(find<ReadPlan>(hear(Welcome{.plan = "rounds: 1"})).at(0).plan, "rounds: 1");
  EXPECT_EQ(sent<Ready>(step(PlanReady{true, "", "", 0})).at(0).train_samples, 4708u);

  const auto train_effects = serve(hear(round_start(1, first)));
  ASSERT_THAT(train_effects, SizeIs(1));
  const auto task = find<Train>(train_effects).at(0);
  EXPECT_EQ(task.round, 1u);
  EXPECT_EQ(*task.model, *first);
  EXPECT_EQ(task.architecture, sha256("architecture"));

  const auto offer = sent<UpdateOffer>(train(1)).at(0);
  EXPECT_EQ(offer.round, 1u);
  EXPECT_EQ(offer.update, sha256(*update));
  EXPECT_EQ(offer.update_bytes, update->size());
  EXPECT_EQ(offer.architecture, sha256("architecture"));
  EXPECT_EQ(offer.samples, 4708u);
  EXPECT_EQ(offer.train_loss, 0.25);

  Bytes uploaded;
  for (std::uint64_t at = 0; at < update->size(); at += kChunkBytes) {
    const auto chunk = sent<Chunk>(hear(Fetch{offer.update, at, kChunkBytes})).at(0);
    uploaded.insert(uploaded.end(), chunk.bytes.begin(), chunk.bytes.end());
  }
  EXPECT_EQ(uploaded, *update);

  const auto settled = find<Settle>(hear(Accepted{1, offer.update}));
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_TRUE(settled[0].accepted);
  EXPECT_EQ(settled[0].round, 1u);

  const auto judge = find<Judge>(serve(hear(finish(second))));
  ASSERT_THAT(judge, SizeIs(1));
  EXPECT_EQ(*judge[0].model, *second);
  SiteReport report;
  report.verdict = "federation helped";
  const auto told = sent<SiteReport>(step(Judged{report, ""}));
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].verdict, "federation helped");
  EXPECT_EQ(stopped(hear(Goodbye{"the report has arrived"})), "completed: the report has arrived");
  EXPECT_THAT(step(Connected{}), IsEmpty()) << "a stopped session says nothing any more";
}

TEST_F(SessionTest, FetchesAWindowAtATimeAndEveryByteOnce) {
  reach_ready();
  auto open = sent<Fetch>(hear(round_start(1, first)));
  EXPECT_THAT(open, SizeIs(BlobReceiver::kWindow));
  std::uint64_t asked = 0;
  for (std::size_t i = 0; i < open.size(); ++i) {
    EXPECT_EQ(open[i].offset, asked);
    asked += open[i].length;
    for (const auto& next : sent<Fetch>(hear(shelf.serve(open[i]).value()))) open.push_back(next);
  }
  EXPECT_EQ(asked, first->size());
}

TEST_F(SessionTest, AConnectionThatBreaksWhileThePlanIsReadDoesNotReadItTwice) {
  step(Connected{});
  EXPECT_THAT(find<ReadPlan>(hear(Welcome{.plan = "p"})), SizeIs(1));
  EXPECT_THAT(reconnect(), IsEmpty());
  EXPECT_THAT(sent<Ready>(step(PlanReady{true, "", "", 0})), SizeIs(1));
  EXPECT_THAT(sent<Fetch>(hear(round_start(1, first))), SizeIs(BlobReceiver::kWindow));
}

TEST_F(SessionTest, FetchingGoesOnBehindTheLastByteAfterAReconnect) {
  reach_ready();
  serve(hear(round_start(1, first)), 2);
  const auto resumed = reconnect();
  ASSERT_FALSE(sent<Fetch>(resumed).empty());
  EXPECT_EQ(sent<Fetch>(resumed)[0].offset, 2 * kChunkBytes);
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty()) << "the repeated invitation changes nothing";
  const auto train_effects = find<Train>(serve(resumed));
  ASSERT_THAT(train_effects, SizeIs(1));
  EXPECT_EQ(*train_effects[0].model, *first);
}

TEST_F(SessionTest, TrainingGoesOnThroughAReconnect) {
  reach_training();
  EXPECT_THAT(sent<Ready>(reconnect()), SizeIs(1));
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty()) << "it is being trained already";
  EXPECT_THAT(sent<UpdateOffer>(train(1)), SizeIs(1));
}

TEST_F(SessionTest, AnUpdateThatIsReadyWhileDisconnectedIsOfferedOnTheNextConnection) {
  reach_training();
  step(Disconnected{});
  EXPECT_THAT(train(1), IsEmpty()) << "nobody is there to be told";
  EXPECT_THAT(sent<Hello>(step(Connected{})), SizeIs(1));
  EXPECT_THAT(sent<UpdateOffer>(hear(Welcome{})), SizeIs(1));
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty());
}

TEST_F(SessionTest, AnOfferIsRepeatedAfterAReconnectAndStillServed) {
  const auto offer = reach_offering();
  const auto again = sent<UpdateOffer>(reconnect());
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].update, offer.update);
  EXPECT_THAT(sent<Chunk>(hear(Fetch{offer.update, 0, kChunkBytes})), SizeIs(1));
  EXPECT_TRUE(find<Settle>(hear(Accepted{1, offer.update})).at(0).accepted);
}

TEST_F(SessionTest, AnAcknowledgementThatWasLostWithItsConnectionCountsWhenTheOfferIsRepeated) {
  const auto offer = reach_offering();
  EXPECT_THAT(sent<UpdateOffer>(reconnect()), SizeIs(1));
  // The round closed meanwhile; the next invitation stands before the answer to the offer.
  EXPECT_THAT(find<Settle>(hear(round_start(2, second))), IsEmpty());
  const auto effects = hear(Accepted{1, offer.update});
  EXPECT_TRUE(find<Settle>(effects).at(0).accepted);
  EXPECT_EQ(find<Train>(serve(effects)).at(0).round, 2u);
}

TEST_F(SessionTest, JudgingGoesOnThroughAReconnectAndIsNotStartedTwice) {
  reach_judging();
  EXPECT_THAT(sent<Ready>(reconnect()), SizeIs(1));
  EXPECT_THAT(hear(finish(second)), IsEmpty());
  EXPECT_THAT(sent<SiteReport>(step(Judged{})), SizeIs(1));
}

TEST_F(SessionTest, AVerdictThatIsReadyWhileDisconnectedIsReportedOnTheNextConnection) {
  reach_judging();
  step(Disconnected{});
  EXPECT_THAT(step(Judged{}), IsEmpty());
  step(Connected{});
  EXPECT_THAT(sent<SiteReport>(hear(Welcome{})), SizeIs(1));
  EXPECT_THAT(hear(finish(second)), IsEmpty());
  EXPECT_THAT(stopped(hear(Goodbye{"thanks"})), "completed: thanks");
}

TEST_F(SessionTest, AReportIsRepeatedAfterAReconnect) {
  reach_judging();
  EXPECT_THAT(sent<SiteReport>(step(Judged{})), SizeIs(1));
  EXPECT_THAT(sent<SiteReport>(reconnect()), SizeIs(1));
}

TEST_F(SessionTest, SaysNothingWhileDisconnected) {
  step(Connected{});
  hear(Welcome{});
  step(Disconnected{});
  EXPECT_THAT(step(PlanReady{true, "", "", 0}), IsEmpty());
  step(Connected{});
  EXPECT_EQ(sent<Ready>(hear(Welcome{})).at(0).train_samples, 4708u);
  EXPECT_EQ(sent<Fetch>(hear(round_start(1, first))).at(0).offset, 0u);
}

TEST_F(SessionTest, TakesUpNothingBeforeItHasAcceptedThePlan) {
  step(Connected{});
  hear(Welcome{});
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty());
  EXPECT_THAT(hear(finish(first)), IsEmpty());
  EXPECT_THAT(hear(SecureAggregation{1, {}}), IsEmpty());
  EXPECT_THAT(sent<Fetch>(step(PlanReady{true, "", "", 0})), IsEmpty());
}

TEST_F(SessionTest, ARoundOfNoPlanEndsIt) {
  reach_ready();
  EXPECT_THAT(stopped(hear(round_start(0, first))), HasSubstr("speaks of round 0"));
}

TEST_F(SessionTest, ARoundThatWasMissedIsNotMadeUpFor) {
  reach_ready();
  serve(hear(round_start(1, first)), 2);
  const auto newer = hear(round_start(2, second));
  EXPECT_EQ(sent<Fetch>(newer).at(0).blob, sha256(*second));
  EXPECT_THAT(hear(Chunk{sha256(*first), 2 * kChunkBytes, Bytes(kChunkBytes, std::byte{1})}),
              IsEmpty())
      << "a late piece of the old model";
  const auto train_effects = find<Train>(serve(newer));
  ASSERT_THAT(train_effects, SizeIs(1));
  EXPECT_EQ(train_effects[0].round, 2u);
}

TEST_F(SessionTest, ARoundThatClosedDuringTrainingIsSettledAsLostAndTheNextIsTakenUp) {
  reach_training();
  EXPECT_THAT(hear(round_start(2, second)), IsEmpty());
  EXPECT_THAT(hear(round_start(3, first)), IsEmpty()) << "only the newest counts";
  const auto effects = train(1);
  EXPECT_THAT(sent<UpdateOffer>(effects), IsEmpty());
  ASSERT_THAT(find<Settle>(effects), SizeIs(1));
  EXPECT_FALSE(find<Settle>(effects)[0].accepted);
  EXPECT_EQ(find<Settle>(effects)[0].round, 1u);
  EXPECT_EQ(find<Train>(serve(effects)).at(0).round, 3u);
}

TEST_F(SessionTest, AVoidRoundsModelIsTrainedAgainInTheNextOne) {
  const auto offer = reach_offering();
  hear(Accepted{1, offer.update});
  const auto again = find<Train>(serve(hear(round_start(2, first))));
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(again[0].round, 2u);
}

TEST_F(SessionTest, FinishDuringTrainingIsJudgedWhenTheTrainingEnds) {
  reach_training();
  EXPECT_THAT(hear(finish(second)), IsEmpty());
  const auto effects = train(1);
  EXPECT_FALSE(find<Settle>(effects).at(0).accepted);
  const auto judge = find<Judge>(serve(effects));
  ASSERT_THAT(judge, SizeIs(1));
  EXPECT_EQ(*judge[0].model, *second);
}

TEST_F(SessionTest, FinishGoesBeforeARoundThatWasNotTakenUpYet) {
  reach_ready();
  serve(hear(round_start(1, first)), 1);
  EXPECT_THAT(find<Judge>(serve(hear(finish(second)))), SizeIs(1));
}

TEST_F(SessionTest, ARefusalSettlesTheUpdateAsLostAndSaysWhy) {
  reach_offering();
  EXPECT_THAT(hear(Refused{7, "another round's"}), IsEmpty());
  const auto settled = find<Settle>(hear(Refused{1, "its norm 5 is above 4"}));
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_FALSE(settled[0].accepted);
  EXPECT_EQ(settled[0].why, "its norm 5 is above 4");
  EXPECT_THAT(hear(Refused{1, "again"}), IsEmpty());
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty()) << "this round is over for this site";
  EXPECT_THAT(find<Train>(serve(hear(round_start(2, second)))), SizeIs(1));
}

TEST_F(SessionTest, AnUpdateIsNotGivenOutAnyMoreOnceItIsSettled) {
  const auto offer = reach_offering();
  hear(Accepted{1, offer.update});
  EXPECT_THAT(hear(Fetch{offer.update, 0, kChunkBytes}), IsEmpty());
}

TEST_F(SessionTest, AnAcknowledgementOfAnotherUpdateSettlesNothing) {
  reach_offering();
  EXPECT_THAT(hear(Accepted{1, sha256("another")}), IsEmpty());
}

TEST_F(SessionTest, APlanThatTheSiteRefusesEndsTheSession) {
  step(Connected{});
  hear(Welcome{});
  EXPECT_EQ(stopped(step(PlanReady{false, "epochs 9 is over the policy's 5", "", 0})),
            "failed: the plan is refused: epochs 9 is over the policy's 5");
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty());
}

TEST_F(SessionTest, AModelWithoutThePromisedHashEndsTheSession) {
  reach_ready();
  const auto small = made_blob(1000, 1);
  const auto fetch = sent<Fetch>(hear(round_start(1, small))).at(0);
  auto chunk = shelf.serve(fetch).value();
  chunk.bytes[999] ^= std::byte{1};
  EXPECT_THAT(stopped(hear(chunk)), HasSubstr("failed: from the coordinator: the 1000 bytes"));
}

TEST_F(SessionTest, AnEmptyModelEndsTheSessionInsteadOfBeingAskedForForEver) {
  reach_ready();
  EXPECT_THAT(stopped(hear(RoundStart{1, sha256(""), 0, {}, 1000})), HasSubstr("empty"));
}

TEST_F(SessionTest, AFailedTrainingEndsTheSessionWithItsReason) {
  reach_training();
  EXPECT_EQ(stopped(step(Trained{1, {}, 0, "the loss is no longer finite"})),
            "failed: training failed: the loss is no longer finite");
}

TEST_F(SessionTest, AFailedVerdictEndsTheSessionWithItsReason) {
  reach_judging();
  EXPECT_EQ(stopped(step(Judged{{}, "no image"})), "failed: the verdict failed: no image");
}

TEST_F(SessionTest, GoodbyeBeforeTheReportEndsTheSessionAsNotCompleted) {
  reach_offering();
  EXPECT_EQ(stopped(hear(Goodbye{"3 rounds in a row without a quorum"})),
            "failed: 3 rounds in a row without a quorum");
}

TEST_F(SessionTest, ACoordinatorThatSendsWhatOnlyNodesSendIsLeft) {
  for (const Message& message : {Message(Hello{}), Message(UpdateOffer{}), Message(SiteReport{})}) {
    Session fresh(1);
    fresh.step(Connected{}, Time(0));
    EXPECT_THAT(stopped(fresh.step(Heard{message}, Time(0))), HasSubstr(message_name(message)));
  }
}

class TeacherTest : public SessionTest {
 protected:
  Effects plan_with_teacher(const std::string& sha, std::uint64_t bytes) {
    step(Connected{});
    hear(Welcome{});
    return step(PlanReady{true, "", sha, bytes});
  }
  const Blob teacher = made_blob(5 * kChunkBytes + 1, 9);
};

TEST_F(TeacherTest, IsFetchedBeforeTheFirstRoundIsTakenUp) {
  const auto digest = shelf.put(teacher);
  auto fetches = plan_with_teacher(hex(digest), teacher->size());
  EXPECT_EQ(sent<Fetch>(fetches).at(0).blob, digest);
  EXPECT_THAT(hear(round_start(1, first)), IsEmpty());
  const auto effects = serve(std::move(fetches));
  ASSERT_THAT(effects, SizeIs(3));
  EXPECT_THAT(sent<Ready>(effects), SizeIs(1));
  EXPECT_EQ(std::get<UseTeacher>(effects[1]).parameters, *teacher);
  EXPECT_EQ(*std::get<Train>(effects[2]).model, *first);
}

TEST_F(TeacherTest, IsFetchedOnAfterAReconnect) {
  const auto digest = shelf.put(teacher);
  serve(plan_with_teacher(hex(digest), teacher->size()), 3);
  const auto resumed = reconnect();
  EXPECT_EQ(sent<Fetch>(resumed).at(0).offset, 3 * kChunkBytes);
  EXPECT_THAT(find<UseTeacher>(serve(resumed)), SizeIs(1));
}

TEST_F(TeacherTest, WhoseHashIsNoHashIsARefusedPlanAndNoCrash) {
  const std::string right = hex(sha256("a teacher"));
  for (const std::string& wrong :
       {std::string("zz"), right.substr(2), right + "00", "g" + right.substr(1),
        "-1" + right.substr(2), "0x" + right.substr(2)}) {
    session = Session(1);
    EXPECT_THAT(stopped(plan_with_teacher(wrong, 10)), HasSubstr("the plan is refused")) << wrong;
  }
}

TEST_F(TeacherTest, OfNoBytesIsRefused) {
  EXPECT_THAT(stopped(plan_with_teacher(hex(sha256("")), 0)), HasSubstr("its teacher has no bytes"));
}

TEST_F(TeacherTest, ThatTheCoordinatorDoesNotHaveEndsTheSessionInsteadOfWaitingForEver) {
  plan_with_teacher(hex(sha256("gone")), 10);
  EXPECT_THAT(stopped(hear(Refused{0, "no such blob here"})), HasSubstr("no such blob here"));
}

}  // namespace
}  // namespace preceptor::node
