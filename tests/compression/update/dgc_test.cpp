#include <gmock/gmock.h>

#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

using testing::ElementsAre;

/// 25, 6.25, 1.56, 0.4, then 0.1 %, as the paper's table of its warm-up has it.
TEST(Dgc, TheWarmUpSendsFewerValuesEachRound) {
  ParameterSpace space;
  space.add("w", {100000}, Role::kWeight);
  auto options = options_of({{{"codec", "topk"}, {"fraction", "0.001"}}}, true);
  options.dgc.warm_up = 4;
  const auto codec = UpdateCodec::create(options, space).value();
  const auto delta = layered_update(space.size());
  ErrorFeedback memory;
  std::vector<double> percent;
  for (std::uint64_t round = 0; round < 6; ++round) {
    const auto bytes = codec.encode(delta, round, memory).value();
    EXPECT_LE(bytes.size(), codec.size_bound());
    std::size_t sent = 0;
    ASSERT_TRUE(codec.decode(bytes, [&](std::size_t, auto floats) -> Result<void> {
      sent += std::size_t(std::ranges::count_if(floats, [](float x) { return x != 0; }));
      return {};
    }));
    percent.push_back(double(sent) / 1000);
  }
  const double wanted[] = {25, 6.25, 1.56, 0.4, 0.1, 0.1};
  for (std::size_t i = 0; i < 6; ++i) EXPECT_NEAR(percent[i], wanted[i], 0.03 * wanted[i]) << i;
}

TEST(Dgc, ARoundThatTheWarmUpHasNotIsRefused) {
  ParameterSpace space;
  space.add("w", {1000}, Role::kWeight);
  auto options = options_of({{{"codec", "topk"}}}, true);
  options.dgc.warm_up = 2;
  const auto codec = UpdateCodec::create(options, space).value();
  ErrorFeedback memory;
  auto bytes = codec.encode(layered_update(1000), 1, memory).value();
  ASSERT_EQ(bytes[8], std::byte{0}) << "behind the length, the round";
  EXPECT_TRUE(codec.decode(bytes, ignore));
  bytes[8] = std::byte{3};
  EXPECT_EQ(codec.decode(bytes, ignore).error().message, "of no round of the warm-up");
  bytes[8] = std::byte{1};
  EXPECT_FALSE(codec.decode(bytes, ignore)) << "it keeps another share";
}

Coder only(std::size_t place) {
  return {[](std::span<const float> x) -> Result<Bytes> {
            const auto raw = std::as_bytes(x);
            return Bytes(raw.begin(), raw.end());
          },
          [place](const Bytes& bytes, const Coder::Fold& fold) -> Result<void> {
            std::vector<float> x(bytes.size() / sizeof(float));
            std::memcpy(x.data(), bytes.data(), bytes.size());
            for (std::size_t i = 0; i < x.size(); ++i)
              if (i != place) x[i] = 0;
            return fold(0, x);
          }};
}

/// By hand, with momentum 1/2 and updates of (1, 1), of which only the first value is ever sent.
/// Velocity of the second: 1, 1.5, 1.75; its sum is what is owed. The first starts from 0 each time.
TEST(Dgc, AccumulatesVelocityAndMasksWhatWasSent) {
  ErrorFeedback memory;
  const float update[] = {1, 1};
  for (int round = 0; round < 3; ++round) ASSERT_TRUE(memory.encode(only(0), update, {.momentum = 0.5}));
  EXPECT_THAT(memory.memory(), ElementsAre(0, 4.25f));
  EXPECT_THAT(memory.velocity(), ElementsAre(0, 1.75f));
}

TEST(Dgc, WithoutMaskingWhatWasSentKeepsItsVelocity) {
  ErrorFeedback memory;
  const float update[] = {1, 1};
  for (int round = 0; round < 3; ++round)
    ASSERT_TRUE(memory.encode(only(0), update, {.momentum = 0.5, .masking = false}));
  EXPECT_THAT(memory.velocity(), ElementsAre(1.75f, 1.75f));
}

TEST(Dgc, ClipsTheUpdateAndNotWhatIsOwed) {
  ErrorFeedback memory;
  memory.restore({100, 0});
  const float update[] = {30, 40};
  ASSERT_TRUE(memory.encode(only(5), update, {.clip_norm = 5}));
  EXPECT_THAT(memory.memory(), ElementsAre(103, 4));
  const float small[] = {3, 4};
  ASSERT_TRUE(memory.encode(only(5), small, {.clip_norm = 5}));
  EXPECT_THAT(memory.memory(), ElementsAre(106, 8));
  const float large[] = {3e30f, 4e30f};
  ErrorFeedback fresh;
  ASSERT_TRUE(fresh.encode(only(5), large, {.clip_norm = 5}));
  EXPECT_NEAR(fresh.memory()[0], 3, 1e-5);
}

}  // namespace
}  // namespace preceptor::compression::test
