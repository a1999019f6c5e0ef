#include "compression/update/transform.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compression/update/passes.h"
#include "compression/update/update.h"
#include "tests/compression/update/simd.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ParameterSpace network() {
  ParameterSpace space;
  space.add("conv.weight", {24, 16, 3, 3}, Role::kWeight);
  space.add("conv.bias", {24}, Role::kBias);
  space.add("norm.running_mean", {24}, Role::kNormMean);
  space.add("empty.weight", {0, 5}, Role::kWeight);
  space.add("fc.weight", {50, 40}, Role::kWeight);
  space.add("small.weight", {3, 3}, Role::kWeight);
  space.add("scalar", {}, Role::kWeight);
  return space;
}

std::vector<Piece> trained(const ParameterSpace& space) {
  std::vector<Piece> pieces;
  for (const auto& piece : space.pieces())
    if (!is_statistic(piece.role)) pieces.push_back(piece);
  return pieces;
}

std::unique_ptr<Transform> transform(const std::string& name, const std::vector<Piece>& pieces,
                                     const CodecSettings& settings = {}) {
  auto made = (**transforms().find(name))(settings, pieces);
  if (!made) throw std::logic_error(made.error().message);
  return std::move(*made);
}

std::vector<float> decoded(const Transform& t, std::span<const float> coded,
                           Transform::Memory& memory) {
  std::vector<float> all;
  const auto done = t.decode(coded, memory, [&](std::size_t offset, auto floats) -> Result<void> {
    EXPECT_EQ(offset, all.size()) << "in order";
    all.insert(all.end(), floats.begin(), floats.end());
    return {};
  });
  EXPECT_TRUE(done) << done.error().message;
  return all;
}
std::vector<float> decoded(const Transform& t, std::span<const float> coded) {
  Transform::Memory none;
  return decoded(t, coded, none);
}

/// The contract of transform.h, over every registered one with its default settings.
class AnyTransform : public testing::TestWithParam<std::string> {
 protected:
  ParameterSpace space = network();
  std::unique_ptr<Transform> made = transform(GetParam(), trained(space));
  std::vector<float> update = layered_update(space.trainable());
};

TEST_P(AnyTransform, GivesAsManyFloatsAsItSaysAndAllOfTheUpdateBack) {
  Transform::Memory memory;
  for (std::uint64_t round = 0; round < 3; ++round) {
    const auto coded = made->encode(update, round, memory);
    EXPECT_EQ(coded.size(), made->coded_size());
    EXPECT_LT(coded.size(), update.size());
    EXPECT_TRUE(all_finite(coded));
    EXPECT_EQ(decoded(*made, coded).size(), update.size());
  }
}

TEST_P(AnyTransform, AModelOfNoFloatsGoesThrough) {
  const auto none = transform(GetParam(), {});
  Transform::Memory memory;
  const auto coded = none->encode({}, 1, memory);
  EXPECT_EQ(coded.size(), none->coded_size());
  EXPECT_THAT(decoded(*none, coded), testing::IsEmpty());
}

TEST_P(AnyTransform, ZerosStayZeros) {
  Transform::Memory memory;
  const std::vector<float> zeros(update.size());
  for (int round = 0; round < 2; ++round)
    EXPECT_EQ(decoded(*made, made->encode(zeros, 1, memory)), zeros);
  EXPECT_TRUE(all_finite(made->encode(update, 1, memory)));
}

TEST_P(AnyTransform, GivesTheSameFloatsOnEveryInstructionSet) {
  std::vector<float> first, back;
  for (const auto target : simd_targets()) {
    Forced forced(target);
    Transform::Memory memory;
    made->encode(update, 1, memory);
    const auto coded = made->encode(update, 2, memory);
    const auto floats = decoded(*made, coded);
    if (first.empty()) first = coded, back = floats;
    EXPECT_EQ(coded, first);
    EXPECT_EQ(floats, back);
  }
}

TEST_P(AnyTransform, AddsUpWhereItSaysSo) {
  if (!made->linear()) GTEST_SKIP() << "not linear, and says so";
  Transform::Memory memory;
  const auto other = layered_update(update.size(), 2);
  auto sum = update;
  add(sum, other);
  auto coded = made->encode(update, 1, memory);
  add(coded, made->encode(other, 2, memory));
  const auto wanted = made->encode(sum, 3, memory);
  for (std::size_t i = 0; i < coded.size(); ++i) ASSERT_NEAR(coded[i], wanted[i], 1e-4);
}

TEST_P(AnyTransform, AnUnknownSettingNamesTheKey) {
  const auto bad = (**transforms().find(GetParam()))({{"no_such_key", "1"}}, trained(space));
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr(GetParam() + ": no_such_key: unknown key"));
}

INSTANTIATE_TEST_SUITE_P(Registered, AnyTransform, testing::ValuesIn(transforms().names()),
                         [](const auto& made) { return made.param; });

TEST(Transforms, AreAllLinked) {
  EXPECT_THAT(transforms().names(), ElementsAre("fetchsgd", "powersgd"));
}

/// Sum of `rank` outer products with singular values that halve.
std::vector<float> matrix_of_rank(std::size_t rows, std::size_t columns, int rank) {
  RandomStream random(7, "matrix");
  std::vector<float> m(rows * columns);
  for (int k = 0; k < rank; ++k) {
    std::vector<double> u(rows), v(columns);
    for (auto& x : u) x = random.normal();
    for (auto& x : v) x = random.normal() * std::pow(0.5, k);
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t j = 0; j < columns; ++j) m[i * columns + j] += float(u[i] * v[j]);
  }
  return m;
}

TEST(PowerSgd, AMatrixOfItsRankComesBackAtOnce) {
  ParameterSpace space;
  space.add("fc.weight", {60, 45}, Role::kWeight);
  const auto update = matrix_of_rank(60, 45, 3);
  for (const auto* rank : {"3", "5"}) {
    const auto power = transform("powersgd", space.pieces(), {{"rank", rank}});
    Transform::Memory memory;
    for (std::uint64_t round = 0; round < 3; ++round)
      EXPECT_LT(relative_error(update, decoded(*power, power->encode(update, round, memory))), 1e-9)
          << rank;
  }
}

/// The best approximation of rank 2 leaves the other singular values; the power iteration, started
/// from its last result, comes to it.
TEST(PowerSgd, WarmStartsComeToTheBestApproximation) {
  ParameterSpace space;
  space.add("fc.weight", {60, 45}, Role::kWeight);
  const auto update = matrix_of_rank(60, 45, 6);
  const auto power = transform("powersgd", space.pieces(), {{"rank", "2"}});
  Transform::Memory memory;
  std::vector<double> errors;
  for (std::uint64_t round = 0; round < 30; ++round)
    errors.push_back(relative_error(update, decoded(*power, power->encode(update, round, memory))));
  EXPECT_LT(errors.back(), 0.95 * errors.front());
  EXPECT_NEAR(errors[29], errors[25], 1e-4 * errors[29]) << "it has settled";
  // What is left is orthogonal to what was sent on both sides, as with singular vectors.
  const auto sent = decoded(*power, power->encode(update, 30, memory));
  double left_right = 0, scale = 0;
  for (std::size_t a = 0; a < 60; ++a)
    for (std::size_t b = 0; b < 60; ++b) {
      double sum = 0, all = 0;
      for (std::size_t j = 0; j < 45; ++j) {
        sum += (double(update[a * 45 + j]) - sent[a * 45 + j]) * sent[b * 45 + j];
        all += double(sent[a * 45 + j]) * sent[b * 45 + j];
      }
      left_right += sum * sum, scale += all * all;
    }
  EXPECT_LT(left_right, 1e-6 * scale);
}

TEST(PowerSgd, VectorsAndSmallMatricesTravelAsTheyAre) {
  const auto space = network();
  const auto power = transform("powersgd", trained(space), {{"rank", "4"}});
  const auto update = layered_update(space.trainable());
  Transform::Memory memory;
  const auto sent = decoded(*power, power->encode(update, 1, memory));
  const std::size_t conv = 24 * 16 * 9, bias = 24, fc = 50 * 40;
  EXPECT_EQ(power->coded_size(), 4 * (24 + 144) + bias + 4 * (50 + 40) + 9 + 1);
  for (std::size_t i = conv; i < conv + bias; ++i) EXPECT_EQ(sent[i], update[i]);
  for (std::size_t i = conv + bias + fc; i < update.size(); ++i) EXPECT_EQ(sent[i], update[i]);
}

TEST(FetchSgd, FindsTheLargeValuesInTheSumOfManySites) {
  ParameterSpace space;
  space.add("w", {20000}, Role::kWeight);
  const auto fetch =
      transform("fetchsgd", space.pieces(),
                {{"fraction", "0.0005"}, {"momentum", "0"}, {"ratio", "2"}});
  Transform::Memory none;
  std::vector<float> sum(fetch->coded_size());
  RandomStream random(3, "sites");
  for (int site = 0; site < 5; ++site) {
    std::vector<float> update(20000);
    for (auto& x : update) x = float(0.01 * random.normal());
    for (std::size_t i = 0; i < 10; ++i) update[i * 1999] += i % 2 ? 1.0f : -1.0f;
    add(sum, fetch->encode(update, 1, none));
  }
  Transform::Memory memory;
  const auto found = decoded(*fetch, sum, memory);
  for (std::size_t i = 0; i < 10; ++i) EXPECT_NEAR(found[i * 1999], i % 2 ? 5 : -5, 1) << i;
  EXPECT_EQ(std::ranges::count_if(found, [](float x) { return x != 0; }), 10);
}

/// Thirty values at ten a round, each round the same: the mean of what arrived misses them by what
/// is owed over the number of rounds.
TEST(FetchSgd, WhatARoundLeavesOutComesLater) {
  ParameterSpace space;
  space.add("w", {3000}, Role::kWeight);
  const auto fetch = transform("fetchsgd", space.pieces(),
                               {{"fraction", "0.00333"}, {"momentum", "0"}, {"ratio", "1"}});
  const auto dense = layered_update(3000);
  std::vector<float> update(3000);
  for (std::size_t i = 0; i < 3000; i += 100) update[i] = dense[i];
  const auto error_after = [&](int rounds) {
    Transform::Memory none, memory;
    std::vector<float> arrived(3000);
    for (int round = 0; round < rounds; ++round)
      add(arrived, decoded(*fetch, fetch->encode(update, 1, none), memory));
    multiply(arrived, 1.0f / float(rounds));
    return relative_error(update, arrived);
  };
  EXPECT_LT(error_after(60), 0.02 * error_after(3));
}

TEST(FetchSgd, MomentumGoesOnAfterTheUpdatesEnd) {
  ParameterSpace space;
  space.add("w", {100}, Role::kWeight);
  const auto fetch = transform("fetchsgd", space.pieces(),
                               {{"fraction", "0.01"}, {"momentum", "0.5"}, {"ratio", "1"}});
  std::vector<float> update(100);
  update[42] = 8;
  Transform::Memory none, memory;
  EXPECT_EQ(decoded(*fetch, fetch->encode(update, 1, none), memory)[42], 8);
  update[42] = 0;
  EXPECT_EQ(decoded(*fetch, fetch->encode(update, 1, none), memory)[42], 4);
  EXPECT_EQ(decoded(*fetch, fetch->encode(update, 1, none), memory)[42], 2);
}

TEST(UpdateCodec, ATransformGoesInFrontOfThePipelineAndErrorFeedbackRemembersWhatItLost) {
  const auto space = network();
  const auto codec =
      UpdateCodec::create(options_of({{{"codec", "powersgd"}, {"rank", "2"}}, {{"codec", "cast16"}}},
                                     true),
                          space).value();
  const auto delta = layered_update(space.size());
  std::vector<float> arrived(space.size());
  ErrorFeedback memory;
  const auto error_after = [&](int rounds) {
    arrived.assign(space.size(), 0);
    memory = {};
    std::size_t bytes = 0;
    for (int round = 0; round < rounds; ++round) {
      const auto coded = codec.encode(delta, std::uint64_t(round), memory).value();
      EXPECT_LE(coded.size(), codec.size_bound());
      bytes = coded.size();
      EXPECT_TRUE(codec.decode(coded, [&](std::size_t offset, auto floats) -> Result<void> {
        add(std::span(arrived).subspan(offset, floats.size()), floats);
        return {};
      }));
    }
    EXPECT_LT(bytes, space.size() * sizeof(float) / 4);
    multiply(arrived, 1.0f / float(rounds));
    return relative_error(delta, arrived);
  };
  EXPECT_LT(error_after(40), 0.05 * error_after(1));
  EXPECT_EQ(memory.basis.size(), 2u * (144 + 40));
  EXPECT_EQ(codec.sum_size(), space.size());
}

TEST(UpdateCodec, ALinearTransformIsAddedUpCodedAndSettledOnce) {
  const auto space = network();
  const auto codec =
      UpdateCodec::create(options_of({{{"codec", "fetchsgd"}, {"fraction", "1e-9"}, {"ratio", "1"},
                                       {"momentum", "0"}}},
                                     false),
                          space).value();
  ASSERT_GT(codec.sum_size(), space.size());
  std::vector<float> delta(space.size());
  delta[5] = 2, delta[24 * 144 + 24 + 3] = 7;  // a weight, a statistic
  std::vector<float> mean(codec.sum_size());
  for (int site = 0; site < 2; ++site) {
    ErrorFeedback unused;
    const auto coded = codec.encode(delta, 1, unused).value();
    EXPECT_LE(coded.size(), codec.size_bound());
    ASSERT_TRUE(codec.decode(coded, [&](std::size_t offset, auto floats) -> Result<void> {
      add(std::span(mean).subspan(offset, floats.size()), floats);
      return {};
    }));
  }
  multiply(mean, 0.5f);
  EXPECT_EQ(mean[5], 0) << "weights wait in the sketch";
  EXPECT_EQ(mean[24 * 144 + 24 + 3], 7) << "statistics do not";
  Transform::Memory memory;
  ASSERT_TRUE(codec.settle(mean, memory));
  EXPECT_EQ(mean[5], 2);
  EXPECT_EQ(mean[24 * 144 + 24 + 3], 7);
}

TEST(UpdateCodec, TransformsAreRefusedWhereTheyCannotWork) {
  const auto space = network();
  const auto error = [&](const UpdateOptions& options) {
    const auto codec = UpdateCodec::create(options, space);
    return codec ? "none" : codec.error().message;
  };
  EXPECT_THAT(error(options_of({{{"codec", "zstd"}}, {{"codec", "powersgd"}}}, true)),
              HasSubstr("powersgd: works on the whole update; place it first"));
  EXPECT_THAT(error(options_of({{{"codec", "powersgd"}, {"rank", "0"}}}, true)),
              HasSubstr("stage 1 (powersgd): "));
  EXPECT_THAT(error(options_of({{{"codec", "fetchsgd"}}}, true)), HasSubstr("error_feedback"));
  EXPECT_THAT(error(options_of({{{"codec", "fetchsgd"}, {"rows", "4"}}}, false)),
              HasSubstr("not odd"));
  auto statistics = options_of({}, false);
  statistics.statistics = {{{"codec", "powersgd"}}};
  EXPECT_THAT(error(statistics), HasSubstr("statistics"));
  auto dgc = options_of({}, false);
  dgc.dgc.momentum = 0.9;
  EXPECT_THAT(error(dgc), HasSubstr("need error_feedback"));
  dgc = options_of({}, true);
  dgc.dgc.warm_up = 4;
  EXPECT_THAT(error(dgc), HasSubstr("topk"));
  dgc.dgc = {.momentum = 1};
  EXPECT_THAT(error(dgc), HasSubstr("[0, 1)"));
}

TEST(UpdateCodec, NoDamageToATransformedUpdateCrashesItsDecoder) {
  const auto space = network();
  for (const auto& weights : std::vector<std::vector<CodecSettings>>{
           {{{"codec", "powersgd"}}}, {{{"codec", "powersgd"}}, {{"codec", "eden"}}},
           {{{"codec", "fetchsgd"}}}, {{{"codec", "topk"}, {"fraction", "0.01"}}}}) {
    auto options = options_of(weights, false);
    if (weights[0].at("codec") == "topk") options.dgc.warm_up = 3;
    const auto codec = UpdateCodec::create(options, space).value();
    ErrorFeedback memory;
    const auto whole = codec.encode(layered_update(space.size()), 1, memory).value();
    RandomStream random(4, "damage");
    int refused = 0;
    for (int run = 0; run < 500; ++run) {
      auto bytes = whole;
      for (auto flips = 1 + random.below(3); flips > 0; --flips)
        bytes[random.below(std::min<std::size_t>(bytes.size(), 64))] ^=
            std::byte(1 << random.below(8));
      if (random.below(3) == 0) bytes.resize(random.below(bytes.size()));
      const auto done = codec.decode(bytes, [&](std::size_t offset, auto floats) -> Result<void> {
        if (offset + floats.size() > codec.sum_size()) throw std::logic_error("past the end");
        return {};
      });
      refused += !done;
    }
    EXPECT_GT(refused, 250);
    for (std::size_t length = 0; length < std::min<std::size_t>(whole.size(), 300); ++length)
      ASSERT_FALSE(codec.decode(std::span(whole).first(length), ignore)) << length;
  }
}

TEST(PlainProfile, IsAPipelineOfSixteenfoldCompression) {
  const auto update = layered_update(1 << 18);
  const auto pipeline = make(plain_profile());
  EXPECT_TRUE(pipeline.unbiased());
  EXPECT_LT(pipeline.encode(update, 1).size() * 15.9, double(update.size() * sizeof(float)));
}

}  // namespace
}  // namespace preceptor::compression::test
