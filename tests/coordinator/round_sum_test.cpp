#include "coordinator/round_sum.h"

#include "tests/coordinator/made.h"

namespace preceptor::coordinator {
namespace {

using test::made_delta;
using test::made_ring;
using test::made_space;
using test::secret;
using testing::HasSubstr;
using transport::UpdateOffer;

class SecureSumTest : public testing::Test {
 protected:
  SecureSumTest() { sum.begin(3); }
  std::string admitted(const UpdateOffer& offer) const {
    const auto verdict = sum.admit(offer, 40);
    return verdict ? "admitted" : verdict.error().message;
  }
  std::vector<float> mean() {
    std::vector<float> model(space.size());
    const auto told = sum.close();
    EXPECT_TRUE(told) << told.error().message;
    sum.apply(model, 1);
    return model;
  }

  const ParameterSpace space = made_space();
  const compression::RingCodec ring = made_ring(space);
  SecureSum sum{ring, 1};
};

TEST_F(SecureSumTest, AnUpdateOfAnotherSizeIsRefusedBeforeAByteIsFetched) {
  UpdateOffer offer{.round = 3, .update_bytes = ring.size()};
  EXPECT_EQ(admitted(offer), "admitted");
  for (const auto bytes : {std::uint64_t{0}, ring.size() - 1, ring.size() + 1, ~std::uint64_t{0}}) {
    offer.update_bytes = bytes;
    EXPECT_THAT(admitted(offer), HasSubstr("has exactly")) << bytes;
  }
}

TEST_F(SecureSumTest, AnOfferThatTellsWeightOrLossInTheClearIsRefused) {
  EXPECT_THAT(admitted({.round = 3, .update_bytes = ring.size(), .samples = 40}), HasSubstr("in the clear"));
  EXPECT_THAT(admitted({.round = 3, .update_bytes = ring.size(), .train_loss = 0.5}), HasSubstr("in the clear"));
}

TEST_F(SecureSumTest, WhatIsRefusedLeavesTheSumAsItWas) {
  const auto good = secret(ring, made_delta(space, 1), 40, 3);
  ASSERT_TRUE(sum.fold(good, 0, 0));
  auto bad = good;
  std::fill_n(bad.begin(), 20, std::byte{0x55});  // words beyond ±Q
  EXPECT_FALSE(sum.fold(bad, 0, 0));
  EXPECT_FALSE(sum.fold(std::span(good).first(good.size() - 1), 0, 0));
  const auto with = mean();
  sum.begin(3);
  ASSERT_TRUE(sum.fold(good, 0, 0));
  EXPECT_EQ(mean(), with);
}

TEST_F(SecureSumTest, ANinthUpdateInARingForEightIsRefused) {
  for (std::uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(sum.fold(secret(ring, made_delta(space, i), 10 + i, 3), 0, 0));
  const auto ninth = sum.fold(secret(ring, made_delta(space, 9), 19, 3), 0, 0);
  ASSERT_FALSE(ninth);
  EXPECT_THAT(ninth.error().message, HasSubstr("room for 8"));
}

TEST_F(SecureSumTest, TellsTheMeanLossAndThePooledAucOfTheRound) {
  ASSERT_TRUE(sum.fold(secret(ring, made_delta(space, 1), 30, 3, 0.25), 0, 0));
  ASSERT_TRUE(sum.fold(secret(ring, made_delta(space, 2), 10, 3, 1.25), 0, 0));
  const auto told = sum.close();
  ASSERT_TRUE(told && *told);
  EXPECT_DOUBLE_EQ((*told)->train_loss, 0.5);
  EXPECT_DOUBLE_EQ((*told)->pooled_auc.value(), 1);
}

TEST_F(SecureSumTest, ARoundWithoutAnUpdateIsRefused) { EXPECT_FALSE(sum.close()); }

}  // namespace
}  // namespace preceptor::coordinator
