#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "privacy/secure_aggregation/shamir.h"

namespace preceptor::privacy {
namespace {

Secret<32> filled(std::uint8_t value) { return Secret<32>::of(Bytes(32, std::byte(value))); }
std::vector<Share> shares_of(std::initializer_list<std::pair<int, int>> points) {
  std::vector<Share> shares;
  for (const auto& [x, y] : points) shares.push_back({std::uint8_t(x), filled(std::uint8_t(y))});
  return shares;
}

TEST(Gf256, MultipliesAsFips197Does) {
  EXPECT_EQ(gf256_multiply(0x57, 0x83), 0xc1);  // FIPS 197, 4.2
  EXPECT_EQ(gf256_multiply(0x57, 0x13), 0xfe);
  for (int a = 0; a < 256; ++a) EXPECT_EQ(gf256_multiply(std::uint8_t(a), 1), a);
}

TEST(Shamir, EvaluatesAndCombinesByHand) {
  // f(x) = 0x42 + 0xa5 x + 0x3c x^2, computed apart from this program.
  const std::uint8_t coefficients[] = {0x42, 0xa5, 0x3c};
  const std::pair<int, int> points[] = {{1, 0xdb}, {2, 0xe3}, {3, 0x7a}, {4, 0x0d}, {5, 0x94}};
  for (const auto& [x, y] : points) EXPECT_EQ(gf256_evaluate(coefficients, std::uint8_t(x)), y);
  for (int a = 0; a < 5; ++a)
    for (int b = a + 1; b < 5; ++b)
      for (int c = b + 1; c < 5; ++c)
        EXPECT_TRUE(*combine_shares(shares_of({points[a], points[b], points[c]}), 3) == filled(0x42));
  EXPECT_TRUE(*combine_shares(shares_of({points[4], points[1], points[0], points[3], points[2]}), 3) == filled(0x42));
}

TEST(Shamir, RefusesWhatNoDealerDeals) {
  EXPECT_EQ(combine_shares(shares_of({{0, 1}, {1, 2}, {2, 3}}), 3).error().code, Code::kCorrupt);
  EXPECT_EQ(combine_shares(shares_of({{1, 1}, {2, 2}, {1, 1}}), 3).error().code, Code::kCorrupt);
  EXPECT_EQ(combine_shares(shares_of({{1, 1}, {2, 2}}), 3).error().code, Code::kUnavailable);
  EXPECT_EQ(combine_shares(shares_of({{1, 0xdb}, {2, 0xe3}, {3, 0x7a}, {4, 0x0c}}), 3).error().code, Code::kCorrupt);
  for (const auto& [t, n] : {std::pair{1, 3}, {0, 3}, {4, 3}, {2, 256}})
    EXPECT_EQ(share_secret(filled(1), t, n).error().code, Code::kInvalid) << t << " of " << n;
}

RC_GTEST_PROP(Shamir, AnyThresholdOfSharesGivesTheSecretBack, ()) {
  const int n = *rc::gen::inRange(2, 33);
  const int t = *rc::gen::inRange(2, n + 1);
  const auto secret = *Secret<32>::random();
  auto shares = *share_secret(secret, t, n);
  RC_ASSERT(int(shares.size()) == n);
  for (std::size_t i = shares.size() - 1; i > 0; --i)
    std::swap(shares[i], shares[std::size_t(*rc::gen::inRange(0, int(i) + 1))]);
  const auto count = std::size_t(*rc::gen::inRange(t, n + 1));
  RC_ASSERT(*combine_shares(std::span(shares).first(count), t) == secret);
}

TEST(Shamir, OneShareLessThanTheThresholdIsUniform) {
  // t = 2: one share of a fixed secret, over 25600 deals: 256 values, 100 expected each. Chi-square with
  // 255 degrees of freedom; 0.9999 quantile 346 per byte place, of which one is looked at: 1e-4 false alarms.
  std::array<int, 256> counts{};
  const auto secret = filled(0);
  for (int deal = 0; deal < 25600; ++deal)
    ++counts[std::to_integer<std::size_t>((*share_secret(secret, 2, 2))[0].y.view()[0])];
  double chi = 0;
  for (const int count : counts) chi += (count - 100.0) * (count - 100.0) / 100.0;
  EXPECT_LT(chi, 346);
  EXPECT_GT(counts[0], 0) << "a coefficient of zero must occur, or shares would leak";
}

}  // namespace
}  // namespace preceptor::privacy
