#include "tests/coordinator/round_fixture.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using testing::SizeIs;
using namespace test;

/// An update of seven pieces.
class LongUploadTest : public RoundTest {
 protected:
  LongUploadTest() : RoundTest(420'000) {}
};

TEST_F(LongUploadTest, AsksForAWindowOfPiecesAtATimeAndForEveryByteOnce) {
  auto round = round_of({{"a", 10}});
  const auto mine = good(1, 10);
  auto open = sent<Fetch>(round.offered("a", mine.offer));
  EXPECT_THAT(open, SizeIs(transport::BlobReceiver::kWindow));
  std::uint64_t asked = 0;
  for (std::size_t i = 0; i < open.size(); ++i) {
    const auto fetch = open[i];
    EXPECT_EQ(fetch.offset, asked);
    asked += fetch.length;
    for (const auto& next : sent<Fetch>(round.arrived("a", mine.shelf.serve(fetch).value())))
      open.push_back(next);
    EXPECT_LE(open.size() - i - 1, transport::BlobReceiver::kWindow);
  }
  EXPECT_EQ(asked, mine.offer.update_bytes);
  EXPECT_EQ(round.close(start).outcome, "complete");
}

TEST_F(LongUploadTest, GoesOnAtTheNextMissingByteAfterADisconnection) {
  auto round = round_of({{"a", 10}});
  const auto mine = good(1, 10);
  const auto open = sent<Fetch>(round.offered("a", mine.offer));
  for (int i = 0; i < 3; ++i) round.arrived("a", mine.shelf.serve(open[i]).value());
  round.left("a", "connection reset");
  EXPECT_FALSE(round.over(end - 1s));
  round.came("a");
  const auto sends = round.offered("a", mine.offer);
  const auto resumed = sent<Fetch>(sends, "a");
  ASSERT_THAT(resumed, SizeIs(transport::BlobReceiver::kWindow));
  EXPECT_EQ(resumed.front().offset, 3 * kChunkBytes);
  EXPECT_THAT(sent<Accepted>(serve(round, "a", mine, sends), "a"), SizeIs(1));
  Accumulator whole(space.size());
  ASSERT_TRUE(whole.fold(codec, encoded(codec, made_delta(space, 1)), 10, 1000));
  std::vector<float> values(space.size());
  whole.apply(values, 1);
  EXPECT_EQ(mean(), values);
}

TEST_F(LongUploadTest, AnOfferRepeatedOnANewConnectionResumesEvenIfTheOldOnesEndWasNotSeen) {
  auto round = round_of({{"a", 10}});
  const auto mine = good(1, 10);
  const auto open = sent<Fetch>(round.offered("a", mine.offer));
  round.arrived("a", mine.shelf.serve(open[0]).value());
  const auto resumed = sent<Fetch>(round.offered("a", mine.offer), "a");
  ASSERT_FALSE(resumed.empty());
  EXPECT_EQ(resumed.front().offset, kChunkBytes);
}

TEST_F(LongUploadTest, AnotherUpdateAfterADisconnectionStartsAtTheFirstByte) {
  auto round = round_of({{"a", 10}});
  const auto first = good(1, 10), second = good(2, 10);
  const auto open = sent<Fetch>(round.offered("a", first.offer));
  round.arrived("a", first.shelf.serve(open[0]).value());
  round.left("a", "crashed");
  const auto sends = round.offered("a", second.offer);
  EXPECT_EQ(sent<Fetch>(sends, "a").front().offset, 0u);
  EXPECT_THAT(sent<Accepted>(serve(round, "a", second, sends), "a"), SizeIs(1));
}

TEST_F(LongUploadTest, KeepsNoMorePartsOfSitesThatLeftThanThereAreSlots) {
  auto round = round_of({{"a", 10}, {"b", 10}, {"c", 10}}, {.uploads = 2});
  std::map<std::string, Gift> gifts;
  const auto start_and_leave = [&](const std::string& peer) {
    gifts[peer] = good(gifts.size(), 10);
    const auto open = sent<Fetch>(round.offered(peer, gifts[peer].offer), peer);
    round.arrived(peer, gifts[peer].shelf.serve(open.at(0)).value());
    round.left(peer, "gone");
  };
  for (const auto* peer : {"a", "b", "c"}) start_and_leave(peer);
  const auto offset = [&](const std::string& peer) {
    return sent<Fetch>(round.offered(peer, gifts[peer].offer), peer).at(0).offset;
  };
  EXPECT_EQ(offset("a"), kChunkBytes);
  EXPECT_EQ(offset("b"), kChunkBytes);
  round.left("a", "gone");
  EXPECT_EQ(offset("c"), 0u) << "three parts would be kept with two slots";
}

}  // namespace
}  // namespace preceptor::coordinator
