#include "tests/node/session_fixture.h"

namespace preceptor::node {
namespace {

using namespace transport;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using namespace test;

/// A site that has `first` and is told of newer models with patches.
class PatchTest : public SessionTest {
 protected:
  void SetUp() override {
    const auto offer = reach_offering();
    hear(Accepted{1, offer.update});
  }
  ModelPatch patch(const Blob& base, const Blob& delta, std::uint32_t round = 1) { return {sha256(*base), shelf.put(delta), delta->size(), round}; }
  RoundStart start_with(std::vector<ModelPatch> patches) {
    auto start = round_start(3, second);
    start.patches = std::move(patches);
    return start;
  }
  const Blob one = made_blob(kChunkBytes + 5, 7), two = made_blob(1000, 8), stranger = made_blob(9, 9);
};

TEST_F(PatchTest, OnlyThePatchesFromTheHeldModelOnAreFetchedAndApplied) {
  const auto effects = serve(hear(start_with({patch(stranger, two), patch(first, one), patch(second, two, 2)})));
  const auto asked = find<Patch>(effects);
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_EQ(*asked[0].base, *first);
  EXPECT_THAT(asked[0].deltas, ElementsAre(*one, *two));
  EXPECT_EQ(asked[0].model, sha256(*second));
  const auto work = find<Train>(step(Patched{second}));
  ASSERT_THAT(work, SizeIs(1));
  EXPECT_EQ(work[0].round, 3u);
  EXPECT_EQ(work[0].model, second);
}

TEST_F(PatchTest, ThatDoNotLeadToThePromisedModelAreFollowedByTheWholeOfIt) {
  serve(hear(start_with({patch(first, one)})));
  const auto effects = step(Patched{nullptr});
  EXPECT_EQ(sent<Fetch>(effects).at(0).blob, sha256(*second));
  EXPECT_EQ(*find<Train>(serve(effects)).at(0).model, *second);
}

TEST_F(PatchTest, ThatTheCoordinatorHasNoMoreAreFollowedByTheWholeModel) {
  auto gone = patch(first, one);
  gone.delta = sha256("gone");
  EXPECT_EQ(sent<Fetch>(hear(start_with({gone}))).at(0).blob, gone.delta);
  const auto effects = hear(Refused{1, "no such blob"});
  EXPECT_EQ(sent<Fetch>(effects).at(0).blob, sha256(*second));
  EXPECT_THAT(find<Train>(serve(effects)), SizeIs(1));
}

TEST_F(PatchTest, ForModelsThatAreNotHereAreLeftAlone) {
  EXPECT_EQ(sent<Fetch>(hear(start_with({patch(stranger, one), patch(two, one)}))).at(0).blob, sha256(*second));
}

TEST_F(PatchTest, ThatAreNoShorterThanTheModelOrOfNoBytesAreLeftAlone) {
  auto long_one = patch(first, one);
  for (const auto bytes : {std::uint64_t{0}, std::uint64_t{second->size()}, ~std::uint64_t{0}}) {
    long_one.bytes = bytes;
    EXPECT_EQ(sent<Fetch>(hear(start_with({long_one}))).at(0).blob, sha256(*second)) << bytes;
    TearDown(), session = Session(4708), SetUp();
  }
  auto half = patch(first, one);
  half.bytes = second->size() - 1;
  EXPECT_EQ(sent<Fetch>(hear(start_with({half, half}))).at(0).blob, sha256(*second)) << "together";
}

TEST_F(PatchTest, GoOnAfterAReconnect) {
  const auto effects = hear(start_with({patch(first, one), patch(second, two, 2)}));
  serve(effects, 1);
  const auto resumed = reconnect();
  EXPECT_EQ(sent<Fetch>(resumed).at(0).blob, sha256(*one));
  EXPECT_EQ(sent<Fetch>(resumed).at(0).offset, kChunkBytes);
  EXPECT_THAT(find<Patch>(serve(resumed)), SizeIs(1));
}

TEST_F(PatchTest, OfAnOlderRoundAreDroppedForTheNewest) {
  hear(start_with({patch(first, one)}));
  const auto third = made_blob(4 * kChunkBytes, 4);
  auto newest = round_start(4, third);
  newest.patches = {patch(first, one), patch(second, two, 2)};
  const auto asked = find<Patch>(serve(hear(newest)));
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_EQ(asked[0].model, sha256(*third));
  EXPECT_EQ(find<Train>(step(Patched{third})).at(0).round, 4u);
}

TEST_F(PatchTest, OfARoundThatWasOvertakenByAModelThatIsHereComeForNothing) {
  const auto effects = hear(start_with({patch(first, one)}));
  EXPECT_THAT(find<Train>(hear(round_start(4, first))), SizeIs(1));
  EXPECT_THAT(serve(effects), IsEmpty()) << "its pieces were under way";
}

TEST_F(PatchTest, BringTheLastModelToTheVerdict) {
  auto last = finish(second);
  last.patches = {patch(first, one)};
  EXPECT_THAT(find<Patch>(serve(hear(last))), SizeIs(1));
  EXPECT_EQ(find<Judge>(step(Patched{second})).at(0).model, second);
}

TEST_F(PatchTest, AModelThatIsHereIsNotFetchedAtAll) {
  const auto effects = hear(round_start(2, first));
  EXPECT_THAT(sent<Fetch>(effects), IsEmpty());
  EXPECT_EQ(find<Train>(effects).at(0).round, 2u);
}

/// The same of a plan whose sites make each model themselves. `first` is the plan's first model.
class PublishedSumsTest : public SessionTest {
 protected:
  void SetUp() override {
    step(Connected{});
    hear(Welcome{.plan = "the plan"});
    PlanReady ready{.accepted = true, .why = "", .teacher_sha256 = "", .teacher_bytes = 0};
    ready.sums = {hex(sha256(*first)), sum->size(), 10};
    step(ready);
    serve(hear(round_start(1, first)));
    hear(Accepted{1, sent<UpdateOffer>(train(1)).at(0).update});
  }
  ModelPatch patch(std::uint32_t round) { return {sha256(*first), shelf.put(sum), sum->size(), round}; }
  RoundStart start_with(std::vector<ModelPatch> patches) {
    auto start = round_start(2, second);
    start.patches = std::move(patches);
    return start;
  }
  const Blob sum = made_blob(6 * kChunkBytes, 7);  ///< as long as the model or longer: what a sum's ring takes
};

TEST_F(PublishedSumsTest, TheSumIsFetchedAndGivenWithItsRound) {
  const auto asked = find<Patch>(serve(hear(start_with({patch(1)}))));
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_EQ(asked[0].patches.at(0).round, 1u);
  EXPECT_THAT(find<Train>(step(Patched{second})), SizeIs(1));
}

TEST_F(PublishedSumsTest, AnotherModelThanTheSumMakesEndsTheSession) {
  serve(hear(start_with({patch(1)})));
  EXPECT_EQ(stopped(step(Patched{nullptr, "another hash"})),
            "failed: the coordinator's model is not what its published sums make of this site's: another hash");
}

TEST_F(PublishedSumsTest, TheLastModelMustFollowToo) {
  auto last = finish(second);
  last.patches = {patch(2)};
  serve(hear(last));
  EXPECT_THAT(stopped(step(Patched{nullptr, "another hash"})), HasSubstr("not what its published sums make"));
}

TEST_F(PublishedSumsTest, WhereNoneLeadsFromTheRoundBeforeTheSessionEnds) {
  auto longer = patch(1), between = patch(1), stranger = patch(1);
  ++longer.bytes;
  between.base = sha256("between");
  stranger.base = sha256("a stranger");
  for (const auto& patches : {std::vector<ModelPatch>{}, {longer}, {patch(1), between}, {patch(2)}, {patch(0)}, {stranger}}) {
    EXPECT_THAT(stopped(hear(start_with(patches))), HasSubstr("no published sum leads from this site's model of round 1 to the coordinator's of round 2"));
    session = Session(4708);
    SetUp();
  }
}

TEST_F(PublishedSumsTest, AfterAnAbsenceTheModelIsTakenWhole) {
  auto later = round_start(4, second);
  later.patches = {{sha256("of round 3"), shelf.put(sum), sum->size(), 3}};
  EXPECT_EQ(sent<Fetch>(hear(later)).at(0).blob, sha256(*second));
}

TEST_F(PublishedSumsTest, SeveralAreFetchedWhileTheyAreShorterThanTheModel) {
  auto later = round_start(4, second);
  const auto between = sha256("between");
  later.patches = {patch(1), {between, shelf.put(sum), sum->size(), 3}};
  EXPECT_EQ(sent<Fetch>(hear(later)).at(0).blob, sha256(*second)) << "each alone is longer than the model";
}

TEST_F(PublishedSumsTest, ThePlansFirstModelIsWelcomeAgain) {
  // A coordinator that had to begin anew.
  serve(hear(start_with({patch(1)})));
  step(Patched{second});
  hear(Accepted{2, sent<UpdateOffer>(train(2)).at(0).update});
  EXPECT_THAT(find<Train>(serve(hear(round_start(1, first)))), SizeIs(1));
}

TEST_F(PublishedSumsTest, NoRoundIsBeyondThePlans) {
  EXPECT_THAT(stopped(hear(round_start(11, second))), HasSubstr("speaks of round 11"));
}

TEST_F(PublishedSumsTest, ASumThatIsNoMoreEndsTheRoundAlone) {
  auto gone = patch(1);
  gone.delta = sha256("gone");
  hear(start_with({gone}));
  EXPECT_THAT(hear(Refused{2, "no such blob"}), IsEmpty());
  auto next = round_start(3, second);
  next.patches = {patch(1)};
  EXPECT_THAT(find<Patch>(serve(hear(next))), SizeIs(1));
}

TEST_F(PublishedSumsTest, NeedTheDigestOfTheFirstModel) {
  session = Session(4708);
  step(Connected{});
  hear(Welcome{.plan = "the plan"});
  PlanReady ready{.accepted = true, .why = "", .teacher_sha256 = "", .teacher_bytes = 0};
  ready.sums = {"no digest", sum->size(), 10};
  EXPECT_EQ(stopped(step(ready)), "failed: the plan is refused: initial is not 64 hexadecimal digits");
}

}  // namespace
}  // namespace preceptor::node
