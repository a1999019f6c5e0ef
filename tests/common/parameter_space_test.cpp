#include "common/parameter_space.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace preceptor {
namespace {

ParameterSpace example() {
  ParameterSpace space;
  space.add("conv.weight", {8, 3, 3, 3}, Role::kWeight);
  space.add("norm.running_mean", {8}, Role::kNormMean);
  space.add("temperature", {}, Role::kBias);
  return space;
}

TEST(ParameterSpace, PiecesLieOneAfterTheOther) {
  const auto space = example();
  ASSERT_EQ(space.pieces().size(), 3u);
  EXPECT_EQ(space.pieces()[0].size, 216u);
  EXPECT_EQ(space.pieces()[1].offset, 216u);
  EXPECT_EQ(space.pieces()[2].offset, 224u);
  EXPECT_EQ(space.pieces()[2].size, 1u) << "[] is a scalar";
  EXPECT_EQ(space.size(), 225u);
  EXPECT_EQ(space.trainable(), 217u) << "statistics are not trained";
  EXPECT_EQ(ParameterSpace().size(), 0u);
}

TEST(ParameterSpace, AShapeThatNoModelHasIsABug) {
  ParameterSpace space;
  EXPECT_THROW(space.add("x", {-1}, Role::kWeight), std::logic_error);
  EXPECT_THROW(space.add("x", {1ll << 40, 1ll << 40}, Role::kWeight), std::logic_error);
  EXPECT_EQ(space.size(), 0u);
}

TEST(ParameterSpace, TheHashChangesWithNameShapeRoleAndOrder) {
  EXPECT_EQ(example().architecture_hash(), example().architecture_hash());
  const auto hash_of = [](std::vector<Piece> pieces) {
    ParameterSpace space;
    for (auto& piece : pieces) space.add(piece.name, piece.shape, piece.role);
    return hex(space.architecture_hash());
  };
  const Piece a{"a", {2, 3}, Role::kWeight}, b{"b", {6}, Role::kBias};
  std::vector<std::string> hashes{
      hash_of({a, b}),
      hash_of({b, a}),
      hash_of({a}),
      hash_of({}),
      hash_of({{"c", {2, 3}, Role::kWeight}, b}),
      hash_of({{"a", {3, 2}, Role::kWeight}, b}),
      hash_of({{"a", {23}, Role::kWeight}, b}),
      hash_of({{"a", {6}, Role::kWeight}, b}),
      hash_of({{"a", {2, 3}, Role::kNormScale}, b}),
  };
  std::ranges::sort(hashes);
  EXPECT_EQ(std::ranges::adjacent_find(hashes), hashes.end());
}

TEST(ParameterSpace, EveryRoleHasItsOwnName) {
  EXPECT_EQ(role_name(Role::kWeight), "weight");
  EXPECT_EQ(role_name(Role::kBias), "bias");
  EXPECT_EQ(role_name(Role::kNormScale), "norm-scale");
  EXPECT_EQ(role_name(Role::kNormBias), "norm-bias");
  EXPECT_EQ(role_name(Role::kNormVariance), "norm-variance");
}

TEST(FlatBuffer, IsAlignedZeroedAndClonedByValue) {
  for (const std::size_t floats : {0u, 1u, 17u, 100000u}) {
    FlatBuffer buffer(floats);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_EQ(buffer.size(), floats);
    EXPECT_TRUE(std::ranges::all_of(buffer.span(), [](float x) { return x == 0; }));
    std::ranges::fill(buffer.span(), 2.0f);
    auto copy = buffer.clone();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(copy.data()) % 64, 0u);
    EXPECT_TRUE(std::ranges::equal(copy.span(), buffer.span()));
    if (floats == 0) continue;
    copy.data()[0] = 3;
    EXPECT_EQ(buffer.data()[0], 2);
  }
  EXPECT_EQ(FlatBuffer().size(), 0u);
}

TEST(ModelHash, IsSha256OfTheFloatsBytes) {
  const float values[] = {1.0f, -0.0f};
  const std::uint8_t bytes[] = {0, 0, 0x80, 0x3f, 0, 0, 0, 0x80};
  EXPECT_EQ(model_hash(values), hex(sha256(std::as_bytes(std::span(bytes)))));
}

}  // namespace
}  // namespace preceptor

namespace preceptor {
namespace {

TEST(ParameterSpace, VariancesBelowZeroAreRaisedToZeroAndNothingElseIs) {
  ParameterSpace space;
  space.add("weight", {2}, Role::kWeight);
  space.add("norm.running_mean", {2}, Role::kNormMean);
  space.add("norm.running_var", {3}, Role::kNormVariance);
  std::vector<float> values{-1, 2, -3, 4, -0.01f, 0, 5};
  repair_variances(space, values);
  EXPECT_EQ(values, (std::vector<float>{-1, 2, -3, 4, 0, 0, 5}));
}

}  // namespace
}  // namespace preceptor
