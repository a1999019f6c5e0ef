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
  ModelPatch patch(const Blob& base, const Blob& delta) { return {sha256(*base), shelf.put(delta), delta->size()}; }
  RoundStart start_with(std::vector<ModelPatch> patches) {
    auto start = round_start(2, second);
    start.patches = std::move(patches);
    return start;
  }
  const Blob one = made_blob(kChunkBytes + 5, 7), two = made_blob(1000, 8), stranger = made_blob(9, 9);
};

TEST_F(PatchTest, OnlyThePatchesFromTheHeldModelOnAreFetchedAndApplied) {
  const auto effects = serve(hear(start_with({patch(stranger, two), patch(first, one), patch(second, two)})));
  const auto asked = find<Patch>(effects);
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_EQ(*asked[0].base, *first);
  EXPECT_THAT(asked[0].deltas, ElementsAre(*one, *two));
  EXPECT_EQ(asked[0].model, sha256(*second));
  const auto work = find<Train>(step(Patched{second}));
  ASSERT_THAT(work, SizeIs(1));
  EXPECT_EQ(work[0].round, 2u);
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
  const auto effects = hear(start_with({patch(first, one), patch(second, two)}));
  serve(effects, 1);
  const auto resumed = reconnect();
  EXPECT_EQ(sent<Fetch>(resumed).at(0).blob, sha256(*one));
  EXPECT_EQ(sent<Fetch>(resumed).at(0).offset, kChunkBytes);
  EXPECT_THAT(find<Patch>(serve(resumed)), SizeIs(1));
}

TEST_F(PatchTest, OfAnOlderRoundAreDroppedForTheNewest) {
  hear(start_with({patch(first, one)}));
  const auto third = made_blob(4 * kChunkBytes, 4);
  auto newest = round_start(3, third);
  newest.patches = {patch(first, one), patch(second, two)};
  const auto asked = find<Patch>(serve(hear(newest)));
  ASSERT_THAT(asked, SizeIs(1));
  EXPECT_EQ(asked[0].model, sha256(*third));
  EXPECT_EQ(find<Train>(step(Patched{third})).at(0).round, 3u);
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

}  // namespace
}  // namespace preceptor::node
