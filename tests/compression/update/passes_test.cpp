#include "compression/update/passes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/compression/update/simd.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

const std::size_t kSizes[] = {0, 1, 7, 15, 16, 17, 100, 1000};

TEST(Passes, FindEveryValueThatIsNotFinite) {
  for (const auto target : simd_targets()) {
    Forced forced(target);
    for (const auto n : kSizes) {
      auto x = layered_update(n);
      EXPECT_TRUE(all_finite(x));
      for (std::size_t i = 0; i < n; ++i)
        for (const auto bad :
             {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
          const auto kept = std::exchange(x[i], bad);
          ASSERT_FALSE(all_finite(x)) << i << " of " << n;
          x[i] = kept;
        }
    }
  }
}

TEST(Passes, AgreeWithTheirDefinitionsAndAcrossInstructionSets) {
  for (const auto n : kSizes) {
    const auto x = layered_update(n, 1), y = layered_update(n, 2);
    double squares = 0, magnitudes = 0;
    float largest = 0;
    for (const auto v : x) {
      squares += double(v) * v, magnitudes += std::abs(v);
      largest = std::max(largest, std::abs(v));
    }
    std::vector<std::vector<double>> sums;
    for (const auto target : simd_targets()) {
      Forced forced(target);
      EXPECT_NEAR(sum_of_squares(x), squares, 1e-5 * squares);
      EXPECT_NEAR(sum_of_magnitudes(x), magnitudes, 1e-5 * magnitudes);
      EXPECT_EQ(largest_magnitude(x), largest);
      EXPECT_EQ(peak(x).largest, largest);
      EXPECT_EQ(peak(x).squares, sum_of_squares(x));
      sums.push_back({sum_of_squares(x), sum_of_magnitudes(x), dot(x, y)});
      double product_of_both = 0;
      for (std::size_t i = 0; i < n; ++i) product_of_both += double(x[i]) * y[i];
      EXPECT_NEAR(dot(x, y), product_of_both, 1e-5 * squares);
      auto scaled = y;
      add_scaled(scaled, 0.3f, x);
      for (std::size_t i = 0; i < n; ++i) {
        const float rounded = x[i] * 0.3f;
        ASSERT_EQ(scaled[i], y[i] + rounded);
      }
      auto sum = y, difference = y, product = y, fused = y;
      add(sum, x), subtract(difference, x), multiply(product, 0.3f), multiply_add(fused, 0.3f, x);
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_EQ(sum[i], y[i] + x[i]);
        ASSERT_EQ(difference[i], y[i] - x[i]);
        ASSERT_EQ(product[i], y[i] * 0.3f);
        const float rounded = y[i] * 0.3f;
        ASSERT_EQ(fused[i], rounded + x[i]);
      }
    }
    EXPECT_THAT(sums, testing::Each(sums[0]));
  }
}

TEST(Passes, AProductTooLargeIsTheLargestFloat) {
  constexpr auto kMax = std::numeric_limits<float>::max();
  std::vector<float> x{kMax, -kMax, 1, 0};
  multiply(x, 3);
  EXPECT_THAT(x, testing::ElementsAre(kMax, -kMax, 3, 0));
}

TEST(Passes, GivePlacesOfLargeMagnitudesInOrder) {
  for (const auto target : simd_targets()) {
    Forced forced(target);
    for (const auto n : kSizes) {
      auto x = layered_update(n);
      for (std::size_t i = 0; i < n; i += 5) x[i] = i % 2 == 0 ? 0.0f : -0.01f;
      for (const auto threshold : {0.0f, 1e-3f, 0.01f, 1e9f}) {
        std::vector<std::uint32_t> wanted;
        for (std::size_t i = 0; i < n; ++i)
          if (std::abs(x[i]) >= threshold) wanted.push_back(std::uint32_t(i));
        EXPECT_EQ(places_of_at_least(x, threshold), wanted) << n << " " << threshold;
      }
    }
  }
}

TEST(Passes, VectorsOfUnlikeLengthThrow) {
  std::vector<float> x(3), y(4);
  EXPECT_THROW(add(x, y), std::logic_error);
}

}  // namespace
}  // namespace preceptor::compression::test
