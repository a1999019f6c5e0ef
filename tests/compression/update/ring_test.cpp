#include "compression/update/ring.h"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <numeric>

#include "compression/update/ring_sum.h"
#include "compression/update/ring_words.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression {
namespace {

using test::layered_update;
using test::relative_error;
using testing::HasSubstr;

/// About `floats` weights with statistics and a frozen piece between them.
ParameterSpace made_space(std::int64_t floats) {
  ParameterSpace space;
  space.add("conv.weight", {floats / 2}, Role::kWeight);
  space.add("norm.running_mean", {5}, Role::kNormMean);
  space.add("base.weight", {7}, Role::kFrozen);
  space.add("fc.weight", {floats - floats / 2}, Role::kWeight);
  space.add("norm.running_var", {5}, Role::kNormVariance);
  return space;
}

RingCodec make(RingOptions options, const ParameterSpace& space) {
  if (options.max_nodes == 0) options.max_nodes = 8;
  auto codec = RingCodec::create(options, space);
  if (!codec) throw std::logic_error(codec.error().message);
  return std::move(*codec);
}

const RingRound kRound{11, 3};

std::vector<std::uint32_t> encode(const RingCodec& codec, std::span<const float> delta,
                                  std::uint64_t node = 0, std::uint64_t samples = 1000) {
  ErrorFeedback memory;
  return codec.encode(delta, samples, kRound, RandomStream(node, "rounding"), memory).value();
}

double norm(std::span<const float> values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

/// A layered update of norm `c`, with zeros where nothing trains.
std::vector<float> made_delta(const ParameterSpace& space, double c, std::uint64_t seed = 1) {
  auto delta = layered_update(space.size(), seed);
  for (const auto& piece : space.pieces())
    if (piece.role != Role::kWeight)
      std::fill_n(delta.begin() + std::ptrdiff_t(piece.offset), piece.size, 0.0f);
  const auto factor = float(c / norm(delta));
  for (auto& x : delta) x *= factor;
  return delta;
}

Bytes update_of(const RingCodec& codec, std::span<const float> delta, std::uint64_t node,
                std::uint64_t samples = 1000) {
  Totals totals;
  totals.samples = samples;
  totals.weight = codec.weight_of(samples);
  totals.loss = 0.5 * double(samples);
  totals.scores.resize(codec.histograms());
  return codec.pack({encode(codec, delta, node, samples), totals.encode()});
}

TEST(RingCodec, GivesBackAnUpdateWithinWhatItsBitsCost) {
  const auto space = made_space(20000);
  const auto delta = made_delta(space, 0.999);
  // range²/(6·Q²) of the squared norm where it is the clip: stochastic rounding's variance.
  for (const auto& [bits, most] : {std::pair(4, 0.06), {8, 2.2e-4}, {12, 8e-7}, {16, 5e-9}}) {
    const auto codec = make({.bits = bits, .clip = 1}, space);
    const auto got = codec.decode(encode(codec, delta), codec.max_weight(), kRound);
    EXPECT_LT(relative_error(delta, got), most) << bits;
    EXPECT_GT(relative_error(delta, got), most / 3) << bits << ": too good to be true";
  }
}

TEST(RingCodec, WhatOneLayerHasOfTheNormDoesNotMatter) {
  const auto space = made_space(20000);
  auto delta = std::vector<float>(space.size());
  for (std::size_t i = 0; i < 200; ++i) delta[i] = i % 3 == 0 ? 0.06f : -0.02f;  // one per cent has all
  const auto codec = make({.bits = 8, .clip = norm(delta)}, space);
  const auto got = codec.decode(encode(codec, delta), codec.max_weight(), kRound);
  EXPECT_LT(relative_error(delta, got), 4e-4);
}

RC_GTEST_PROP(RingCodec, TheSumOfWordsIsTheSumOfIntegersForAnyNodesAndBits, ()) {
  const auto nodes = *rc::gen::inRange(1, 9);
  RingOptions options;
  options.bits = *rc::gen::inRange(2, 21);
  options.max_nodes = nodes;
  options.clip = 0.5;
  options.keep = *rc::gen::element(0.2, 1.0);
  const auto space = made_space(*rc::gen::inRange(100, 700));
  const auto codec = make(options, space);
  RingSum sum(codec);
  std::vector<std::int64_t> expected(codec.words());
  for (int node = 0; node < nodes; ++node) {
    auto delta = made_delta(space, *rc::gen::element(0.01, 0.5, 7.0), std::uint64_t(node));
    for (auto& x : delta)
      if (x == 0) x = float(node - 3) * 100;  // statistics
    const auto words = encode(codec, delta, std::uint64_t(node));
    for (std::size_t i = 0; i < words.size(); ++i) {
      RC_ASSERT(std::uint64_t{words[i]} < std::uint64_t{1} << codec.options().ring_bits);
      RC_ASSERT(std::abs(codec.centred(words[i])) <= std::int64_t(codec.limit()));
      expected[i] += codec.centred(words[i]);
    }
    sum.add(update_of(codec, delta, std::uint64_t(node)));
  }
  for (std::size_t i = 0; i < expected.size(); ++i)
    RC_ASSERT(codec.centred(sum.words()[i]) == expected[i]);
}

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

TEST(RingCodec, TheBoundaryOfTheRingIsExact) {
  const auto space = made_space(200);
  // 2^(r-1) > n·Q: with Q = 127, 4 nodes make 508 < 512 and 5 make 635.
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4}, space).options().ring_bits, 10);
  EXPECT_EQ(make({.bits = 8, .max_nodes = 5}, space).options().ring_bits, 11);
  // Q = 1: 7 nodes fit in 4 bits, the eighth is the 2^3 that wraps.
  EXPECT_EQ(make({.bits = 2, .max_nodes = 7}, space).options().ring_bits, 4);
  EXPECT_EQ(make({.bits = 2, .max_nodes = 8}, space).options().ring_bits, 5);
  // 6 deviations of noise take their room too: 508 + 6·0.5 = 511 fits, 508 + 6·0.7 does not.
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4, .noise = 0.5}, space).options().ring_bits, 10);
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4, .noise = 0.7}, space).options().ring_bits, 11);
}

TEST(RingCodec, RefusesARingThatCouldOverflowWithItsNumbers) {
  const auto space = made_space(200);
  const auto refusal = [&](RingOptions options) {
    const auto codec = RingCodec::create(options, space);
    return codec ? std::string("accepted") : codec.error().message;
  };
  const auto tight = refusal({.bits = 8, .ring_bits = 10, .max_nodes = 5});
  EXPECT_THAT(tight, HasSubstr("5 nodes of ±127"));
  EXPECT_THAT(tight, HasSubstr("11 bits"));
  EXPECT_EQ(refusal({.bits = 8, .ring_bits = 10, .max_nodes = 4}), "accepted");
  EXPECT_EQ(refusal({.bits = 20, .max_nodes = 4096}), "accepted");  // security.md: 20 bits in 32
  EXPECT_THAT(refusal({.bits = 20, .max_nodes = 4097}), HasSubstr("at most 32"));
  EXPECT_THAT(refusal({.max_nodes = 0}), HasSubstr("max_nodes"));
  EXPECT_THAT(refusal({.max_nodes = 3, .chunk = 1000}), HasSubstr("power of two"));
}

TEST(RingCodec, TheLargestSumDoesNotWrap) {
  const auto space = made_space(640);
  const auto codec = make({.bits = 8, .max_nodes = 4}, space);
  for (const int sign : {1, -1}) {
    const auto extreme = std::uint32_t(sign * std::int64_t(codec.limit()));
    const auto word = extreme & ((1u << codec.options().ring_bits) - 1);
    RingSum sum(codec);
    for (int node = 0; node < 4; ++node) {
      Totals totals{.weight = 1, .samples = 1, .loss = 0, .scores = {}};
      sum.add(codec.pack({std::vector(codec.words(), word), totals.encode()}));
    }
    for (const auto total : sum.words()) ASSERT_EQ(codec.centred(total), sign * 4 * 127);
  }
}

TEST(RingCodec, AnUpdateHasExactlyTheBytesThatWereForetold) {
  for (const int bits : {2, 7, 12, 20}) {
    for (const std::int64_t floats : {65, 1000, 9001}) {
      const auto space = made_space(floats);
      const auto codec = make({.bits = bits, .histograms = 3}, space);
      const auto update = update_of(codec, made_delta(space, 1), 1);
      EXPECT_EQ(update.size(), codec.size());
      EXPECT_EQ(codec.size(), (codec.words() * std::size_t(codec.options().ring_bits) + 7) / 8 +
                                  8 * Totals::words(3));
    }
  }
}

TEST(RingCodec, ALongUpdateIsCutToTheClipAndAShortOneIsLeftAlone) {
  const auto space = made_space(5000);
  const auto codec = make({.bits = 16, .clip = 0.5}, space);
  const auto arrives = [&](double length) {
    const auto delta = made_delta(space, length);
    return norm(codec.decode(encode(codec, delta), codec.max_weight(), kRound));
  };
  EXPECT_NEAR(arrives(40), 0.5, 1e-4);
  EXPECT_NEAR(arrives(0.25), 0.25, 1e-4);
}

TEST(RingCodec, StatisticsArriveUnclippedAndUnrotated) {
  const auto space = made_space(500);
  for (const int bits : {2, 5, 8, 20}) {
    const auto codec = make({.bits = bits, .clip = 0.01}, space);
    std::vector<float> delta(space.size());
    for (const auto& piece : space.pieces()) {
      if (!is_statistic(piece.role)) continue;
      for (std::size_t i = 0; i < piece.size; ++i) delta[piece.offset + i] = 30.5f - 17 * float(i);
    }
    RingSum sum(codec);
    sum.add(update_of(codec, delta, 1));
    sum.add(update_of(codec, delta, 2));
    const auto mean = sum.close(kRound).value().mean;
    for (const auto& piece : space.pieces()) {
      if (!is_statistic(piece.role)) continue;
      for (std::size_t i = piece.offset; i < piece.offset + piece.size; ++i)
        EXPECT_NEAR(mean[i], delta[i], 2e-6) << bits;
    }
  }
}

TEST(RingCodec, StatisticsThatAreKeptDoNotTravel) {
  const auto space = made_space(500);
  const auto codec = make({.statistics = "keep"}, space);
  EXPECT_EQ(codec.words(), codec.rotated());
  const auto mean = codec.decode(encode(codec, std::vector<float>(space.size(), 0.01f)),
                                 codec.max_weight(), kRound);
  for (const auto& piece : space.pieces())
    for (std::size_t i = piece.offset; i < piece.offset + piece.size; ++i)
      EXPECT_EQ(mean[i] == 0, piece.role != Role::kWeight) << piece.name;
}

TEST(RingCodec, RoundingIsUnbiasedAlsoWhenFewCoordinatesTravel) {
  const auto space = made_space(256);
  const auto delta = made_delta(space, 0.9);
  for (const double keep : {1.0, 0.25}) {
    const auto codec = make({.bits = 4, .keep = keep}, space);
    constexpr int kRounds = 4000;
    std::vector<double> mean(space.size());
    double spread = 0;
    for (std::uint32_t r = 0; r < kRounds; ++r) {
      const RingRound round{5, r};
      ErrorFeedback memory;
      const auto words =
          codec.encode(delta, 1000, round, RandomStream(9, "rounding", {r}), memory).value();
      const auto got = codec.decode(words, codec.max_weight(), round);
      for (std::size_t i = 0; i < got.size(); ++i) mean[i] += double(got[i]) / kRounds;
      spread += relative_error(delta, got) / kRounds;
    }
    double bias = 0;
    for (std::size_t i = 0; i < mean.size(); ++i) bias += std::pow(mean[i] - delta[i], 2);
    // Noise alone leaves spread/rounds of the squared norm; at a fixed seed 1.5 times that is 8 deviations away.
    EXPECT_LT(bias / std::pow(norm(delta), 2), 1.5 * spread / kRounds) << keep;
  }
}

TEST(RingCodec, ErrorFeedbackDeliversInTheEndWhatFewCoordinatesLeaveOut) {
  const auto space = made_space(512);
  const auto codec = make({.bits = 8, .keep = 0.1, .error_feedback = true}, space);
  const auto delta = made_delta(space, 0.05);
  ErrorFeedback memory;
  std::vector<float> sum(space.size()), wanted(space.size());
  for (std::uint32_t r = 0; r < 200; ++r) {
    const auto words = codec.encode(delta, 1000, {1, r}, RandomStream(2, "rounding", {r}), memory).value();
    const auto got = codec.decode(words, codec.max_weight(), {1, r});
    for (std::size_t i = 0; i < got.size(); ++i) sum[i] += got[i], wanted[i] += delta[i];
  }
  EXPECT_LT(relative_error(wanted, sum), 0.02);
}

TEST(RingCodec, RefusesAValueThatIsNotFinite) {
  const auto space = made_space(100);
  const auto codec = make({}, space);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    auto delta = made_delta(space, 1);
    delta[3] = bad;
    ErrorFeedback memory;
    const auto words = codec.encode(delta, 1, kRound, RandomStream(1, "rounding"), memory);
    ASSERT_FALSE(words);
    EXPECT_EQ(words.error().code, Code::kInvalid);
  }
}

TEST(RingCodec, NodesThatDoNotAgreeOnTheRoundMakeNoise) {
  const auto space = made_space(5000);
  const auto codec = make({}, space);
  const auto delta = made_delta(space, 1);
  const auto got = codec.decode(encode(codec, delta), codec.max_weight(), {kRound.seed, kRound.round + 1});
  EXPECT_GT(relative_error(delta, got), 1.5);
}

TEST(RoundedNormBound, IsTheSmallerOfTheCertainAndTheLikelyOne) {
  // c + √d, and √(c² + d/4 + √(2 ln 1/β)(c + √d/2)), by hand.
  EXPECT_DOUBLE_EQ(rounded_norm_bound(3, 16, 0), 7);
  const double beta = std::exp(-0.5);
  EXPECT_NEAR(rounded_norm_bound(3, 16, beta), std::sqrt(9 + 4 + 1 * (3 + 2)), 1e-12);
  EXPECT_DOUBLE_EQ(rounded_norm_bound(1e6, 1, 1e-300), 1e6 + 1);  // the certain one is smaller here
}

TEST(RoundedNormBound, HoldsForEveryUpdateThatLeavesANode) {
  const auto space = made_space(2000);
  const auto delta = made_delta(space, 50);
  for (const double beta : {0.0, std::exp(-0.5), 0.99}) {
    const auto codec = make({.bits = 3, .beta = beta}, space);
    double most = 0;
    for (std::uint64_t node = 0; node < 200; ++node) {
      double square = 0;
      const auto words = encode(codec, delta, node);
      for (const auto word : std::span(words).first(codec.rotated()))
        square += std::pow(codec.centred(word), 2);
      most = std::max(most, std::sqrt(square));
    }
    EXPECT_LE(most, codec.norm_bound()) << beta;
    EXPECT_GT(most, 0.4 * codec.norm_bound()) << beta << ": a bound that says nothing";
  }
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
    return codec.pack({words, totals.encode()});
  }
  const ParameterSpace space = made_space(1001);
  const RingCodec codec = make({.bits = 5, .histograms = 1}, space);
  const Totals good{.weight = 10, .samples = 10, .loss = 3, .scores = {}};
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
