#include "compression/update/update.h"

#include <gmock/gmock.h>

#include "tests/compression/update/support.h"

namespace preceptor::compression {
namespace {

using test::describe;
using test::layered_update;
using test::relative_error;
using testing::Each;
using testing::ElementsAre;

/// Statistics between the weights, as batch normalisation leaves them; a piece of no floats; a
/// weight longer than a tile, so that tiles and pieces end in different places.
ParameterSpace interleaved_space() {
  ParameterSpace space;
  space.add("conv1.weight", {1000, 9}, Role::kWeight);
  space.add("norm1.weight", {37}, Role::kNormScale);
  space.add("norm1.bias", {37}, Role::kNormBias);
  space.add("norm1.running_mean", {37}, Role::kNormMean);
  space.add("norm1.running_var", {37}, Role::kNormVariance);
  space.add("empty.weight", {0}, Role::kWeight);
  space.add("conv2.weight", {Pipeline::kTile + 1234}, Role::kWeight);
  space.add("norm2.running_mean", {Pipeline::kTile + 5}, Role::kNormMean);
  space.add("fc.weight", {3, 5}, Role::kWeight);
  space.add("fc.bias", {3}, Role::kBias);
  return space;
}

bool is_statistic(const ParameterSpace& space, std::size_t index) {
  for (const auto& piece : space.pieces())
    if (index >= piece.offset && index < piece.offset + piece.size)
      return is_statistic(piece.role);
  throw std::logic_error("outside the space");
}

UpdateCodec make(const UpdateOptions& options, const ParameterSpace& space) {
  auto codec = UpdateCodec::create(options, space);
  if (!codec) throw std::logic_error(codec.error().message);
  return std::move(*codec);
}

Bytes encode(const UpdateCodec& codec, std::span<const float> delta, std::uint64_t seed = 1) {
  ErrorFeedback memory;
  return codec.encode(delta, seed, memory).value();
}

struct Decoded {
  std::vector<float> values;
  std::vector<int> given;  ///< how often each float was folded
};
Decoded decode(const UpdateCodec& codec, const ParameterSpace& space, const Bytes& bytes) {
  Decoded out{std::vector<float>(space.size(), NAN), std::vector<int>(space.size())};
  const auto done =
      codec.decode(bytes, [&](std::size_t offset, std::span<const float> floats) -> Result<void> {
        if (floats.size() > space.size() - offset) throw std::logic_error("fold past the end");
        for (std::size_t i = 0; i < floats.size(); ++i) {
          out.values[offset + i] = floats[i];
          ++out.given[offset + i];
        }
        return {};
      });
  EXPECT_TRUE(done) << done.error().message;
  return out;
}

const UpdateOptions kRaw{.weights = {}, .statistics = {}, .error_feedback = false};

TEST(UpdateCodec, GivesEveryFloatBackOnceAndInItsPlace) {
  const auto space = interleaved_space();
  const auto codec = make(kRaw, space);
  const auto delta = layered_update(space.size());
  const auto decoded = decode(codec, space, encode(codec, delta));
  EXPECT_EQ(decoded.values, delta);
  EXPECT_THAT(decoded.given, Each(1));
}

/// What the section's pipeline alone makes of the floats that belong to it.
std::vector<float> section_alone(const std::vector<CodecSettings>& stages,
                                 const ParameterSpace& space, std::span<const float> delta,
                                 bool statistics, std::uint64_t seed) {
  std::vector<float> floats;
  for (std::size_t i = 0; i < delta.size(); ++i)
    if (is_statistic(space, i) == statistics) floats.push_back(delta[i]);
  const auto pipeline = test::make(stages);
  return pipeline.decode(pipeline.encode(floats, seed), floats.size()).value();
}

TEST(UpdateCodec, EveryPipelineReachesEveryFloatOnceWithinItsSizeBound) {
  const auto space = interleaved_space();
  const auto delta = layered_update(space.size());
  for (const auto& stages : test::pipelines()) {
    const auto codec = make({stages, stages, false}, space);
    const auto bytes = encode(codec, delta);
    const auto decoded = decode(codec, space, bytes);
    EXPECT_THAT(decoded.given, Each(1)) << describe(stages);
    std::array<std::vector<float>, 2> sections;
    for (std::size_t i = 0; i < delta.size(); ++i)
      sections[is_statistic(space, i)].push_back(decoded.values[i]);
    EXPECT_EQ(sections[0], section_alone(stages, space, delta, false, 1)) << describe(stages);
    EXPECT_EQ(sections[1], section_alone(stages, space, delta, true, 2)) << describe(stages);
    EXPECT_LE(bytes.size(), codec.size_bound()) << describe(stages);
  }
}

TEST(UpdateCodec, WeightsAndStatisticsGoThroughTheirOwnPipelines) {
  const auto space = interleaved_space();
  const auto delta = layered_update(space.size());
  const std::vector<CodecSettings> coarse{{{"codec", "topk"}, {"fraction", "0.01"}}};
  const auto wrong_floats = [&](const UpdateOptions& options) {
    const auto codec = make(options, space);
    const auto decoded = decode(codec, space, encode(codec, delta));
    std::array<std::size_t, 2> wrong{};
    for (std::size_t i = 0; i < delta.size(); ++i)
      wrong[is_statistic(space, i)] += decoded.values[i] != delta[i];
    return wrong;
  };
  const auto sparse_weights = wrong_floats({coarse, {}, false});
  EXPECT_GT(sparse_weights[0], space.trainable() / 2);
  EXPECT_EQ(sparse_weights[1], 0u) << "statistics stay exact";
  const auto sparse_statistics = wrong_floats({{}, coarse, false});
  EXPECT_EQ(sparse_statistics[0], 0u);
  EXPECT_GT(sparse_statistics[1], (space.size() - space.trainable()) / 2);
}

TEST(UpdateCodec, FrozenPiecesCostNoByteAndAreNotTouched) {
  ParameterSpace space, thawed;
  for (auto* all : {&space, &thawed}) {
    all->add("conv1.weight", {100, 9}, all == &space ? Role::kFrozen : Role::kWeight);
    all->add("conv1.lora_up.weight", {100, 2}, Role::kWeight);
    all->add("norm1.running_mean", {100}, Role::kNormMean);
  }
  const auto delta = layered_update(space.size());
  const auto bytes = encode(make(kRaw, space), delta);
  EXPECT_EQ(encode(make(kRaw, thawed), delta).size() - bytes.size(), 900 * sizeof(float));
  const auto decoded = decode(make(kRaw, space), space, bytes);
  for (std::size_t i = 0; i < space.size(); ++i) EXPECT_EQ(decoded.given[i], i < 900 ? 0 : 1) << i;
}

TEST(UpdateCodec, ErrorFeedbackRemembersTheWeightsAndNothingElse) {
  const auto space = interleaved_space();
  const auto delta = layered_update(space.size());
  const std::vector<CodecSettings> coarse{{{"codec", "topk"}, {"fraction", "0.01"}}};
  const auto codec = make({coarse, coarse, true}, space);
  ErrorFeedback memory;
  ASSERT_TRUE(codec.encode(delta, 1, memory));
  EXPECT_EQ(memory.memory().size(), space.trainable());
  const auto without = make({coarse, coarse, false}, space);
  ErrorFeedback untouched;
  ASSERT_TRUE(without.encode(delta, 1, untouched));
  EXPECT_TRUE(untouched.memory().empty());
}

TEST(UpdateCodec, ErrorFeedbackMakesTheSumOfManyUpdatesComeOutRight) {
  const auto space = interleaved_space();
  const auto delta = layered_update(space.size());
  const std::vector<CodecSettings> coarse{{{"codec", "topk"}, {"fraction", "0.2"}}};
  const auto error_after = [&](bool feedback) {
    const auto codec = make({coarse, {}, feedback}, space);
    ErrorFeedback memory;
    std::vector<float> sent(space.size()), wanted(space.size());
    for (std::uint64_t round = 0; round < 20; ++round) {
      const auto part = decode(codec, space, codec.encode(delta, round, memory).value());
      for (std::size_t i = 0; i < sent.size(); ++i)
        sent[i] += part.values[i], wanted[i] += delta[i];
    }
    return relative_error(wanted, sent);
  };
  EXPECT_LT(error_after(true), 0.1 * error_after(false));
}

TEST(UpdateCodec, SameDeltaAndSeedGiveTheSameBytesAndAnotherSeedOthers) {
  const auto space = interleaved_space();
  const auto codec = make({}, space);
  const auto delta = layered_update(space.size());
  EXPECT_EQ(encode(codec, delta, 5), encode(codec, delta, 5));
  EXPECT_NE(encode(codec, delta, 5), encode(codec, delta, 6)) << "rounding is stochastic";
}

TEST(UpdateCodec, AModelWithoutStatisticsAndOneWithoutWeightsGoThroughToo) {
  for (const auto role : {Role::kWeight, Role::kNormMean}) {
    ParameterSpace space;
    space.add("only", {100}, role);
    const auto codec = make({}, space);
    const auto bytes = encode(codec, layered_update(100));
    EXPECT_THAT(decode(codec, space, bytes).given, Each(1));
    EXPECT_LE(bytes.size(), codec.size_bound());
  }
}

TEST(UpdateCodec, EveryTruncationIsAnErrorAndNeverReadsPastTheEnd) {
  ParameterSpace space;
  space.add("weight", {70}, Role::kWeight);
  space.add("mean", {9}, Role::kNormMean);
  for (const auto& options : {kRaw, UpdateOptions{}}) {
    const auto codec = make(options, space);
    const auto whole = encode(codec, layered_update(space.size()));
    for (std::size_t length = 0; length < whole.size(); ++length) {
      const Bytes cut(whole.begin(), whole.begin() + std::ptrdiff_t(length));  // exact heap block
      const auto done = codec.decode(cut, [](std::size_t, auto) -> Result<void> { return {}; });
      ASSERT_FALSE(done) << length;
      EXPECT_EQ(done.error().code, Code::kCorrupt);
    }
    auto longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(codec.decode(longer, [](std::size_t, auto) -> Result<void> { return {}; }));
  }
}

TEST(UpdateCodec, ALengthOfTheFirstSectionThatIsNotTrueIsAnError) {
  const auto space = interleaved_space();
  const auto codec = make(kRaw, space);
  const auto whole = encode(codec, layered_update(space.size()));
  std::uint64_t length = 0;
  std::memcpy(&length, whole.data(), sizeof length);
  for (const std::uint64_t wrong :
       {std::uint64_t{0}, length - 1, length + 1, std::uint64_t(whole.size()), ~std::uint64_t{0}}) {
    auto bytes = whole;
    std::memcpy(bytes.data(), &wrong, sizeof wrong);
    EXPECT_FALSE(codec.decode(bytes, [](std::size_t, auto) -> Result<void> { return {}; }))
        << wrong;
  }
}

TEST(UpdateCodec, AnUpdateOfAnotherModelIsAnError) {
  const auto space = interleaved_space();
  ParameterSpace other = space;
  other.add("extra", {1}, Role::kWeight);
  const auto bytes = encode(make(kRaw, other), layered_update(other.size()));
  EXPECT_FALSE(
      make(kRaw, space).decode(bytes, [](std::size_t, auto) -> Result<void> { return {}; }));
}

TEST(UpdateCodec, AFoldThatRefusesEndsTheDecodingWithItsError) {
  const auto space = interleaved_space();
  const auto codec = make(kRaw, space);
  int calls = 0;
  const auto done = codec.decode(encode(codec, layered_update(space.size())),
                                 [&](std::size_t, auto) -> Result<void> {
                                   if (++calls == 3) return fail(Code::kRefused, "enough");
                                   return {};
                                 });
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().message, "enough");
  EXPECT_EQ(calls, 3);
}

TEST(UpdateCodec, ADeltaThatIsNotFiniteIsAnErrorWithOrWithoutErrorFeedback) {
  const auto space = interleaved_space();
  for (const bool feedback : {true, false})
    for (const std::size_t at : {std::size_t{0}, std::size_t{9100}}) {  // a weight, a statistic
      auto delta = layered_update(space.size());
      delta[at] = NAN;
      ErrorFeedback memory;
      const auto bytes = make({.error_feedback = feedback}, space).encode(delta, 1, memory);
      ASSERT_FALSE(bytes) << feedback << at;
      EXPECT_NE(bytes.error().message.find("not finite"), std::string::npos);
      EXPECT_TRUE(memory.memory().empty());
    }
}

TEST(UpdateCodec, AnUnknownStageIsNamed) {
  const auto codec = UpdateCodec::create({.weights = {{{"codec", "zip"}}}}, interleaved_space());
  ASSERT_FALSE(codec);
  EXPECT_NE(codec.error().message.find("zip"), std::string::npos);
}

}  // namespace
}  // namespace preceptor::compression
