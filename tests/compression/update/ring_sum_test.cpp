#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "tests/compression/update/ring_support.h"

namespace preceptor::compression {
namespace {

using namespace test::ring;
using test::relative_error;
using testing::HasSubstr;

TEST(RingSum, OrderAndChunkingDoNotChangeTheSum) {
  const auto space = made_space(3000);
  const auto codec = make({.bits = 7, .max_nodes = 5}, space);
  std::vector<Bytes> updates;
  for (std::uint64_t node = 0; node < 5; ++node)
    updates.push_back(update_of(codec, made_delta(space, 1, node), node, 100 * (node + 1)));
  RingSum whole(codec), pieces(codec);
  for (const auto& update : updates) whole.add(update);
  std::ranges::reverse(updates);
  const auto step = std::size_t(codec.options().ring_bits) * 3;  // 24 words
  for (const auto& update : updates) {
    const auto packed = std::span<const std::byte>(update).first(codec.packed_words());
    for (std::size_t at = 0; at < packed.size(); at += step)
      pieces.add(at / step * 24, packed.subspan(at, std::min(step, packed.size() - at)));
  }
  const int unused = 32 - codec.options().ring_bits;
  for (std::size_t i = 0; i < codec.words(); ++i)
    ASSERT_EQ(whole.words()[i] << unused, pieces.words()[i] << unused) << i;
}

TEST(RingSum, IsTheWeightedMeanOfTheUpdates) {
  const auto space = made_space(3000);
  const auto codec = make({.bits = 16, .clip = 2, .weight_cap = 500}, space);
  const auto a = made_delta(space, 1, 1), b = made_delta(space, 1.5, 2);
  RingSum sum(codec);
  sum.add(update_of(codec, a, 1, 100));
  sum.add(update_of(codec, b, 2, 9000));  // counts as 500
  const auto closed = sum.close(kRound);
  ASSERT_TRUE(closed) << closed.error().message;
  EXPECT_EQ(closed->totals.weight, 600u);
  EXPECT_EQ(closed->totals.samples, 9100u);
  EXPECT_DOUBLE_EQ(closed->totals.mean_loss(), 0.5);
  std::vector<float> expected(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) expected[i] = (a[i] + 5 * b[i]) / 6;
  EXPECT_LT(relative_error(expected, closed->mean), 1e-7);
}

TEST(RingSum, SitesCountTheSameWithoutWeights) {
  const auto space = made_space(3000);
  const auto codec = make({.bits = 16, .weights = "none"}, space);
  const auto a = made_delta(space, 1, 1), b = made_delta(space, 0.5, 2);
  RingSum sum(codec);
  sum.add(update_of(codec, a, 1, 1));
  sum.add(update_of(codec, b, 2, 9000));
  const auto closed = sum.close(kRound).value();
  EXPECT_EQ(closed.totals.weight, 2u);
  std::vector<float> expected(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) expected[i] = (a[i] + b[i]) / 2;
  EXPECT_LT(relative_error(expected, closed.mean), 1e-7);
}

class UnmaskedTest : public testing::Test {
 protected:
  std::string refusal(const Bytes& update) const {
    const auto checked = check_unmasked(codec, update);
    return checked ? "accepted" : checked.error().message;
  }
  Bytes with(std::uint32_t word, Totals totals) const {
    auto words = encode(codec, made_delta(space, 0.1));
    words[7] = word;
    totals.scores.resize(1);
    totals.fidelity.resize(codec.stages().size());
    return codec.pack({words, totals.encode()});
  }
  const ParameterSpace space = made_space(1001);
  const RingCodec codec = make({.bits = 5, .histograms = 1}, space);
  const Totals good{.weight = 10, .samples = 10, .loss = 3, .fidelity = {}, .scores = {}};
};

TEST_F(UnmaskedTest, AnHonestUpdateIsAccepted) { EXPECT_EQ(refusal(with(3, good)), "accepted"); }
TEST_F(UnmaskedTest, OfAnotherSizeIsRefused) {
  auto update = with(3, good);
  update.pop_back();
  EXPECT_THAT(refusal(update), HasSubstr("bytes"));
}
TEST_F(UnmaskedTest, AWordBeyondTheQuantiserIsRefused) {
  EXPECT_EQ(refusal(with(15, good)), "accepted");
  EXPECT_THAT(refusal(with(16, good)), HasSubstr("within ±15"));
}
TEST_F(UnmaskedTest, AWeightThatNoSiteHasIsRefused) {
  auto totals = good;
  totals.weight = 0;
  EXPECT_THAT(refusal(with(3, totals)), HasSubstr("a weight of 0"));
  totals.weight = 1001;
  EXPECT_THAT(refusal(with(3, totals)), HasSubstr("a weight of 1001"));
}
TEST_F(UnmaskedTest, ALossBelowZeroOrImagesBeyondCountingAreRefused) {
  auto totals = good;
  totals.loss = -1;
  EXPECT_THAT(refusal(with(3, totals)), HasSubstr("below zero"));
  totals = good;
  totals.samples = Totals::kMaxImages + 1;
  EXPECT_THAT(refusal(with(3, totals)), HasSubstr("training images"));
}
TEST_F(UnmaskedTest, ANormThatTheClipDoesNotLeaveIsRefusedAloneAndInASum) {
  const auto tight = make({.bits = 20, .clip = 1, .range = 16}, space);
  Totals totals = good;
  totals.fidelity.resize(tight.stages().size());
  const std::vector<std::uint32_t> huge(tight.words(), tight.limit());
  const auto update = tight.pack({huge, totals.encode()});
  const auto alone = check_unmasked(tight, update);
  ASSERT_FALSE(alone);
  EXPECT_THAT(alone.error().message, HasSubstr("norm"));
  RingSum sum(tight);
  sum.add(update);
  const auto closed = sum.close(kRound);
  ASSERT_FALSE(closed);
  EXPECT_THAT(closed.error().message, HasSubstr("norm"));
}
TEST_F(UnmaskedTest, ASumOfNothingIsRefused) {
  EXPECT_FALSE(RingSum(codec).close(kRound));
}

RC_GTEST_PROP(RingWords, PackedWordsComeBack, ()) {
  const int r = *rc::gen::inRange(2, 33);
  const auto count = *rc::gen::inRange<std::size_t>(0, 10000);
  RandomStream random(*rc::gen::arbitrary<std::uint64_t>(), "words");
  std::vector<std::uint32_t> words(count), back(count);
  for (auto& word : words) word = random.bits32() >> (32 - r);
  const auto packed = pack_words(words, r);
  RC_ASSERT(packed.size() == packed_size(count, r));
  unpack_words(packed, count, r, [&](std::size_t first, std::span<const std::uint32_t> tile) {
    std::ranges::copy(tile, back.begin() + std::ptrdiff_t(first));
  });
  RC_ASSERT(back == words);
  if (count > 0) RC_ASSERT(well_padded(packed, count, r));
}

}  // namespace
}  // namespace preceptor::compression
