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
    ready.sums = {hex(sha256(*first)), sum->size()};
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

TEST_F(PublishedSumsTest, NoRoundMovesTheModelTwiceAndNoneAheadOfItsTime) {
  auto twice = patch(1);
  auto again = twice;
  again.base = sha256("between");
  for (const auto& patches : {std::vector{twice, again}, std::vector{patch(2)}, std::vector{patch(0)}}) {
    EXPECT_EQ(sent<Fetch>(hear(start_with(patches))).at(0).blob, sha256(*second)) << "taken whole, and only believed";
    session = Session(4708);
    SetUp();
  }
}

TEST_F(PublishedSumsTest, OfAnotherLengthAreLeftAlone) {
  auto longer = patch(1);
  ++longer.bytes;
  EXPECT_EQ(sent<Fetch>(hear(start_with({longer}))).at(0).blob, sha256(*second));
}

TEST_F(PublishedSumsTest, NeedTheDigestOfTheFirstModel) {
  session = Session(4708);
  step(Connected{});
  hear(Welcome{.plan = "the plan"});
  PlanReady ready{.accepted = true, .why = "", .teacher_sha256 = "", .teacher_bytes = 0};
  ready.sums = {"no digest", sum->size()};
  EXPECT_EQ(stopped(step(ready)), "failed: the plan is refused: initial is not 64 hexadecimal digits");
}

}  // namespace
}  // namespace preceptor::node
