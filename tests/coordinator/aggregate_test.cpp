#include "coordinator/aggregate.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "tests/coordinator/made.h"

namespace preceptor::coordinator {
namespace {

using test::encoded;
using test::made_codec;
using test::made_delta;
using test::made_space;
using testing::HasSubstr;

constexpr double kAnyNorm = 1e12;

class AccumulatorTest : public testing::Test {
 protected:
  void fold(Accumulator& into, std::span<const float> delta, std::uint64_t weight) const {
    const auto folded = into.fold(codec, encoded(codec, delta), weight, kAnyNorm);
    ASSERT_TRUE(folded) << folded.error().message;
  }
  /// What the sum makes of a model of zeros.
  std::vector<float> mean(const Accumulator& into, double rate = 1) const {
    std::vector<float> model(space.size());
    into.apply(model, rate);
    return model;
  }
  std::string refusal(Accumulator& into, std::span<const std::byte> update,
                      std::uint64_t weight = 5, double max_norm = 100) const {
    const auto folded = into.fold(codec, update, weight, max_norm);
    return folded ? "accepted" : folded.error().message;
  }

  ParameterSpace space = made_space();
  compression::UpdateCodec codec = made_codec(space);
  Accumulator sum{space.size()};
};

TEST_F(AccumulatorTest, EveryOrderOfArrivalGivesTheSameModelToTheBit) {
  constexpr int kSites = 5;
  std::vector<std::vector<float>> deltas;
  for (int s = 0; s < kSites; ++s)
    deltas.push_back(made_delta(space, s, std::pow(10.0, -4 + s)));  // 1e-4 … 1
  const std::uint64_t weights[kSites] = {4708, 1, 37, 1'000'003, 12};
  std::vector<int> order(kSites);
  std::iota(order.begin(), order.end(), 0);
  std::set<std::string> exact, naive;
  do {
    Accumulator each(space.size());
    std::vector<float> floats(space.size());
    for (const int s : order) {
      fold(each, deltas[s], weights[s]);
      for (std::size_t i = 0; i < floats.size(); ++i) floats[i] += deltas[s][i] * float(weights[s]);
    }
    exact.insert(model_hash(mean(each)));
    naive.insert(model_hash(floats));
  } while (std::ranges::next_permutation(order).found);
  EXPECT_EQ(exact.size(), 1u);
  EXPECT_GT(naive.size(), 1u) << "these updates could not tell one order from another";
}

TEST_F(AccumulatorTest, IsTheWeightedMeanWithinItsResolution) {
  const std::uint64_t weights[] = {100, 250, 4708};
  std::vector<double> expected(space.size());
  for (std::uint64_t s = 0; s < 3; ++s) {
    const auto delta = made_delta(space, s);
    fold(sum, delta, weights[s]);
    for (std::size_t i = 0; i < expected.size(); ++i)
      expected[i] += double(weights[s]) * delta[i] / (100 + 250 + 4708);
  }
  EXPECT_EQ(sum.weight(), 5058u);
  const auto got = mean(sum);
  for (std::size_t i = 0; i < expected.size(); ++i)  // half a step of the sum, half of a float
    EXPECT_NEAR(got[i], expected[i],
                0.5 / Accumulator::kScale + std::ldexp(std::abs(expected[i]), -24));
}

TEST_F(AccumulatorTest, AWeightOfThreeCountsAsThreeSitesOfOne) {
  const auto heavy = made_delta(space, 1), light = made_delta(space, 2);
  fold(sum, heavy, 3);
  fold(sum, light, 1);
  Accumulator four(space.size());
  for (int i = 0; i < 3; ++i) fold(four, heavy, 1);
  fold(four, light, 1);
  EXPECT_EQ(mean(sum), mean(four));
  EXPECT_NE(mean(sum), mean(four, 0.5));
}

TEST_F(AccumulatorTest, TheRateIsTheShareOfTheMeanThatIsAppliedToTheModel) {
  const std::vector<float> delta(space.size(), 0.25f);
  fold(sum, delta, 10);
  std::vector<float> model(space.size(), 2);
  sum.apply(model, 0.5);
  EXPECT_EQ(model, std::vector<float>(space.size(), 2.125f));
}

TEST_F(AccumulatorTest, ClearForgetsEverything) {
  fold(sum, made_delta(space, 1), 9);
  sum.clear();
  EXPECT_EQ(sum.weight(), 0u);
  fold(sum, made_delta(space, 2), 4);
  Accumulator fresh(space.size());
  fold(fresh, made_delta(space, 2), 4);
  EXPECT_EQ(mean(sum), mean(fresh));
}

TEST_F(AccumulatorTest, TheLargestValueAtTheLargestWeightDoesNotOverflow) {
  for (const float value : {Accumulator::kMaxValue, -Accumulator::kMaxValue}) {
    sum.clear();
    fold(sum, std::vector<float>(space.size(), value), Accumulator::kMaxWeight);
    EXPECT_EQ(mean(sum), std::vector<float>(space.size(), value));
  }
}

/// One update is in the sum already; whatever is refused must leave it as it is.
class RefusalTest : public AccumulatorTest {
 protected:
  void SetUp() override {
    fold(sum, made_delta(space, 1), 7);
    before_ = mean(sum);
  }
  void TearDown() override {
    EXPECT_EQ(sum.weight(), 7u);
    EXPECT_EQ(mean(sum), before_);
  }
  /// Good until its last float, which is decoded after all others would have been added.
  Bytes ends_with(float value) const {
    auto delta = made_delta(space, 2);
    delta.back() = 0.625f;
    auto bytes = encoded(codec, delta);
    test::smuggle(bytes, 0.625f, value);
    return bytes;
  }

 private:
  std::vector<float> before_;
};

TEST_F(RefusalTest, OfAValueThatIsNotANumberLeavesTheSumUntouched) {
  EXPECT_THAT(refusal(sum, ends_with(NAN)), HasSubstr("not finite"));
}
TEST_F(RefusalTest, OfAnInfiniteValueLeavesTheSumUntouched) {
  EXPECT_THAT(refusal(sum, ends_with(INFINITY)), HasSubstr("not finite"));
  EXPECT_THAT(refusal(sum, ends_with(-INFINITY)), HasSubstr("not finite"));
}
TEST_F(RefusalTest, OfAValueThatIsTooLargeLeavesTheSumUntouched) {
  const float above = std::nextafter(Accumulator::kMaxValue, INFINITY);
  EXPECT_THAT(refusal(sum, ends_with(above), 5, kAnyNorm), HasSubstr("above 1024"));
  EXPECT_THAT(refusal(sum, ends_with(-above), 5, kAnyNorm), HasSubstr("above 1024"));
}
TEST_F(RefusalTest, OfTooLongAnUpdateLeavesTheSumUntouched) {
  std::vector<float> delta(space.size());
  delta.front() = 3, delta.back() = 4;
  EXPECT_THAT(refusal(sum, encoded(codec, delta), 5, 4.999), HasSubstr("norm 5 is above 4.999"));
  Accumulator other(space.size());
  EXPECT_EQ(refusal(other, encoded(codec, delta), 5, 5), "accepted");
}
TEST_F(RefusalTest, OfAnyTruncationLeavesTheSumUntouched) {
  const auto whole = encoded(codec, made_delta(space, 2));
  for (std::size_t length = 0; length < whole.size(); ++length)
    ASSERT_NE(refusal(sum, std::span(whole).first(length)), "accepted") << length;
}
TEST_F(RefusalTest, OfBytesTooManyLeavesTheSumUntouched) {
  auto bytes = encoded(codec, made_delta(space, 2));
  bytes.push_back(std::byte{0});
  EXPECT_NE(refusal(sum, bytes), "accepted");
}
TEST_F(RefusalTest, OfAWeightOfZeroLeavesTheSumUntouched) {
  EXPECT_THAT(refusal(sum, encoded(codec, made_delta(space, 2)), 0),
              HasSubstr("no training image"));
}
TEST_F(RefusalTest, OfWeightsThatCouldOverflowLeavesTheSumUntouched) {
  const auto update = encoded(codec, made_delta(space, 2));
  for (const auto weight : {Accumulator::kMaxWeight - 6, ~std::uint64_t{0}, ~std::uint64_t{0} - 6})
    EXPECT_THAT(refusal(sum, update, weight), HasSubstr("training images in one round")) << weight;
}

/// Two sites' sketches, weighted 1 and 3, and the memory that the coordinator keeps between rounds.
TEST(Accumulator, AddsUpSketchesAndUnpacksTheirMeanOnceARound) {
  const auto space = made_space();
  compression::UpdateOptions options;
  options.weights = {{{"codec", "fetchsgd"}, {"rows", "5"}, {"ratio", "1"}, {"fraction", "1e-9"}, {"momentum", "0.5"}}};
  options.statistics = {};
  options.error_feedback = false;
  const auto codec = compression::UpdateCodec::create(options, space).value();
  const auto weight = std::size_t(std::ranges::find_if(space.pieces(), [](const Piece& p) { return p.role == Role::kWeight; })->offset);
  Accumulator sum(space.size());
  std::vector<float> model(space.size());
  for (const float expected : {2.5f, 2.5f + 3.75f}) {  // momentum: 2.5, then 2.5 / 2 + 2.5
    sum.clear();
    for (const auto& [value, samples] : {std::pair{1.0f, 1u}, {3.0f, 3u}}) {
      std::vector<float> delta(space.size());
      delta[weight] = value;
      compression::ErrorFeedback unused;
      ASSERT_TRUE(sum.fold(codec, codec.encode(delta, 1, unused).value(), samples, 100));
    }
    ASSERT_TRUE(sum.settle(codec));
    sum.apply(model, 1);
    EXPECT_FLOAT_EQ(model[weight], expected);
  }
}

TEST_F(AccumulatorTest, HasNothingToSettleWithoutATransform) {
  const auto delta = made_delta(space, 1);
  fold(sum, delta, 3);
  const auto before = mean(sum);
  ASSERT_TRUE(sum.settle(codec));
  EXPECT_EQ(mean(sum), before);
}

}  // namespace
}  // namespace preceptor::coordinator
