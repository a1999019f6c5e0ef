#include "compression/update/sum_step.h"

#include <gmock/gmock.h>

#include "tests/compression/update/ring_support.h"
#include "tests/compression/update/simd.h"

namespace preceptor::compression {
namespace {

using namespace test::ring;
using testing::HasSubstr;

class SumStepTest : public testing::Test {
 protected:
  SumStepTest() {
    for (std::uint64_t node = 0; node < 5; ++node) sum.add(update_of(codec, made_delta(space, 1, node), node, 100 * (node + 1)));
    for (std::size_t i = 0; i < start.size(); ++i) start[i] = 0.01f * float(i % 100);
  }
  std::string refusal(std::span<const std::byte> bytes) {
    auto model = start;
    const auto applied = step.apply(bytes, kRound.round, model);
    return applied ? "" : applied.error().message;
  }
  /// Published bytes with the u64 weight or the u32 nodes replaced.
  template <class T>
  Bytes with(std::size_t from_end, T value) {
    auto bytes = published;
    std::memcpy(bytes.data() + bytes.size() - from_end, &value, sizeof value);
    return bytes;
  }

  const ParameterSpace space = made_space(3000);
  const RingCodec codec = make({.bits = 7, .max_nodes = 5, .histograms = 1}, space);
  RingSum sum{codec};
  const Bytes published = [this] {
    RingSum five(codec);
    for (std::uint64_t node = 0; node < 5; ++node) five.add(update_of(codec, made_delta(space, 1, node), node, 100 * (node + 1)));
    return five.publish().value();
  }();
  const SumStep step{codec, kRound.seed, 0.75, space};
  std::vector<float> start = std::vector<float>(space.size());
};

TEST_F(SumStepTest, MakesTheModelThatTheCoordinatorMakes) {
  auto theirs = start, ours = start;
  move_by_mean(theirs, sum.close(kRound).value().mean, 0.75);
  repair_variances(space, theirs);
  ASSERT_TRUE(step.apply(published, kRound.round, ours));
  EXPECT_EQ(theirs, ours);
  EXPECT_NE(start, ours);
}

TEST_F(SumStepTest, MakesTheSameBitsOnEveryInstructionSet) {
  auto widest = start;
  ASSERT_TRUE(step.apply(published, kRound.round, widest));
  for (const auto target : test::simd_targets()) {
    const test::Forced forced(target);
    auto model = start;
    ASSERT_TRUE(step.apply(published, kRound.round, model));
    EXPECT_EQ(std::memcmp(model.data(), widest.data(), 4 * model.size()), 0) << hwy::TargetName(target);
  }
}

TEST_F(SumStepTest, AnotherRoundOrRateMakesAnotherModel) {
  auto a = start, b = start, c = start;
  ASSERT_TRUE(step.apply(published, kRound.round, a));
  ASSERT_TRUE(step.apply(published, kRound.round + 1, b));
  ASSERT_TRUE(SumStep(codec, kRound.seed, 1, space).apply(published, kRound.round, c));
  EXPECT_NE(a, b);
  EXPECT_NE(a, c);
}

TEST_F(SumStepTest, TellsOfTheTotalsTheWeightAlone) {
  EXPECT_EQ(published.size(), step.bytes());
  EXPECT_EQ(step.bytes(), codec.packed_words() + 12);
}

TEST_F(SumStepTest, RefusesWhatNoHonestCohortAddsUpTo) {
  EXPECT_EQ(refusal(published), "");
  EXPECT_THAT(refusal(std::span(published).first(published.size() - 1)), HasSubstr("this job's have"));
  EXPECT_THAT(refusal(with(4, std::uint32_t{6})), HasSubstr("6 nodes; the ring has room for 5"));
  EXPECT_THAT(refusal(with(4, std::uint32_t{0})), HasSubstr("a sum of no update"));
  EXPECT_THAT(refusal(with(12, std::uint64_t{4})), HasSubstr("a weight of 4 for 5 nodes"));
  EXPECT_THAT(refusal(with(12, ~std::uint64_t{0})), HasSubstr("a weight of"));
  // Said to be one node's, the same sum is above what a clip leaves: a coordinator may not scale what it publishes.
  RingSum all_alike(codec);
  for (std::uint64_t node = 0; node < 5; ++node) all_alike.add(update_of(codec, made_delta(space, 1, 1), 1, 1000));
  auto loud = all_alike.publish().value();
  EXPECT_EQ(refusal(loud), "");
  const std::uint32_t one = 1;
  const std::uint64_t weight = codec.weight_of(1000);
  std::memcpy(loud.data() + loud.size() - 4, &one, 4);
  std::memcpy(loud.data() + loud.size() - 12, &weight, 8);
  EXPECT_THAT(refusal(loud), HasSubstr("the sum's norm"));
  // Nor may it say that loud updates had little weight: the mean divides by it.
  loud = all_alike.publish().value();
  const std::uint64_t least = 5;
  std::memcpy(loud.data() + loud.size() - 12, &least, 8);
  EXPECT_THAT(refusal(loud), HasSubstr("of weight 5 together"));
}

TEST_F(SumStepTest, RefusesStatisticsThatNoNodeSends) {
  auto bytes = published;
  const auto r = std::size_t(codec.options().ring_bits);
  RingSum words(codec);
  words.add(0, std::span(bytes).first(codec.packed_words()));
  for (auto& word : words.words().subspan(codec.rotated())) word = codec.limit() * 5;
  std::vector<std::uint32_t> all(words.words().begin(), words.words().end());
  for (auto& word : all) word &= ~0u >> (32 - r);
  const auto packed = pack_words(all, int(r));
  std::ranges::copy(packed, bytes.begin());
  EXPECT_THAT(refusal(bytes), HasSubstr("a normalisation statistic beyond ±1024"));
}

TEST_F(SumStepTest, NoiseMakesRoomForItselfAndNoMore) {
  ParameterSpace plain;
  plain.add("weight", {3000}, Role::kWeight);
  const auto noisy = make({.bits = 7, .max_nodes = 5, .noise = 20}, plain);
  const SumStep noisy_step(noisy, 1, 1, plain);
  RandomStream random(1, "noise");
  const auto with_noise = [&](double deviation) {
    RingSum five(noisy);
    for (std::uint64_t node = 0; node < 5; ++node) five.add(update_of(noisy, made_delta(plain, 1, node), node));
    for (auto& word : five.words()) word += std::uint32_t(std::int32_t(std::lround(deviation * random.normal())));
    std::vector<float> model(plain.size());
    return bool(noisy_step.apply(five.publish().value(), 1, model));
  };
  EXPECT_TRUE(with_noise(20));
  EXPECT_FALSE(with_noise(150));
}

TEST_F(SumStepTest, RefusesBitsBehindTheLastWord) {
  const auto space_of_odd = made_space(130);
  const auto odd = make({.bits = 7, .max_nodes = 5}, space_of_odd);
  RingSum small(odd);
  small.add(update_of(odd, made_delta(space_of_odd, 1, 1), 1, 1000));
  auto bytes = small.publish().value();
  ASSERT_NE(odd.words() * std::size_t(odd.options().ring_bits) % 8, 0u) << "no spare bit to set";
  bytes[odd.packed_words() - 1] |= std::byte{0x80};
  std::vector<float> model(space_of_odd.size());
  const auto applied = SumStep(odd, 1, 1, space_of_odd).apply(bytes, 1, model);
  ASSERT_FALSE(applied);
  EXPECT_EQ(applied.error().code, Code::kCorrupt);
}

}  // namespace
}  // namespace preceptor::compression
