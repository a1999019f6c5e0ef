#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include "tests/compression/update/ring_support.h"

namespace preceptor::compression {
namespace {

using namespace test::ring;
using test::relative_error;
using testing::HasSubstr;

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

TEST(RingCodec, TheBoundaryOfTheRingIsExact) {
  const auto space = made_space(200);
  // 2^(r-1) > n·Q: with Q = 127, 4 nodes make 508 < 512 and 5 make 635.
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4}, space).options().ring_bits, 10);
  EXPECT_EQ(make({.bits = 8, .max_nodes = 5}, space).options().ring_bits, 11);
  // Q = 1: 7 nodes fit in 4 bits, the eighth is the 2^3 that wraps.
  EXPECT_EQ(make({.bits = 2, .max_nodes = 7}, space).options().ring_bits, 4);
  EXPECT_EQ(make({.bits = 2, .max_nodes = 8}, space).options().ring_bits, 5);
  // 6 deviations of noise take their room too: 508 + 6·0.5 = 511 fits, 508 + 6·0.7 does not.
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4, .statistics = "keep", .noise = 0.5}, space).options().ring_bits, 10);
  EXPECT_EQ(make({.bits = 8, .max_nodes = 4, .statistics = "keep", .noise = 0.7}, space).options().ring_bits, 11);
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
  EXPECT_THAT(refusal({.max_nodes = 3, .noise = 1}), HasSubstr("statistics: keep"));
}

TEST(RingCodec, TheLargestSumDoesNotWrap) {
  const auto space = made_space(640);
  const auto codec = make({.bits = 8, .max_nodes = 4}, space);
  for (const int sign : {1, -1}) {
    const auto extreme = std::uint32_t(sign * std::int64_t(codec.limit()));
    const auto word = extreme & ((1u << codec.options().ring_bits) - 1);
    RingSum sum(codec);
    for (int node = 0; node < 4; ++node) {
      Totals totals{.weight = 1, .samples = 1, .loss = 0, .fidelity = {}, .scores = {}};
      totals.fidelity.resize(codec.stages().size());
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
                                  8 * codec.layout().words());
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

TEST(RingCodec, TheMeterNamesTheStageThatLoses) {
  const auto space = made_space(20000);
  const auto measure = [&](RingOptions options, double length) {
    std::vector<Fidelity> fidelity;
    ErrorFeedback memory;
    const auto codec = make(options, space);
    EXPECT_TRUE(codec.encode(made_delta(space, length), 1000, kRound, RandomStream(1, "rounding"), memory, &fidelity));
    std::vector<std::string> names;
    for (const auto& stage : fidelity) names.push_back(stage.stage);
    EXPECT_EQ(names, codec.stages());
    return fidelity;
  };
  const auto clipped = measure({.bits = 12}, 10);
  EXPECT_NEAR(clipped[0].cosine, 1, 1e-6);
  EXPECT_NEAR(clipped[0].norm_ratio, 0.1, 1e-6);
  EXPECT_NEAR(clipped[1].cosine, 1, 1e-4);
  const auto sparse = measure({.bits = 16, .keep = 0.04, .error_feedback = true}, 1);
  EXPECT_NEAR(sparse[1].cosine, 0.2, 0.1);  // √keep for an even update
  EXPECT_NEAR(sparse[2].cosine, sparse[1].cosine, 1e-3);
  const auto tiny = measure({.bits = 4}, 0.001);  // a thousandth of the clip: rounding is all that is left
  EXPECT_NEAR(tiny[0].cosine, 1, 1e-6);
  EXPECT_LT(tiny[1].cosine, 0.1);
  EXPECT_GT(tiny[1].norm_ratio, 10);
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

}  // namespace
}  // namespace preceptor::compression
