#include "compression/update/hadamard.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <string>

#include "tests/compression/update/simd.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

std::vector<std::uint32_t> signs_for(std::size_t n, std::uint64_t seed = 1) {
  std::vector<std::uint32_t> signs(sign_words(n));
  RandomStream(seed, "signs").fill(signs);
  return signs;
}

/// From the matrix's definition: H[i][j] = (-1)^popcount(i & j).
std::vector<double> by_definition(const std::vector<float>& x,
                                  const std::vector<std::uint32_t>& signs) {
  std::vector<double> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < x.size(); ++j) {
      const bool minus = (std::popcount(i & j) + (signs[j / 32] >> j % 32)) % 2 == 1;
      y[i] += minus ? -double(x[j]) : double(x[j]);
    }
    y[i] /= std::sqrt(double(x.size()));
  }
  return y;
}

TEST(Hadamard, IsTheMatrixOfItsDefinition) {
  for (std::size_t n = 1; n <= 2048; n *= 2) {
    const auto x = layered_update(n);
    const auto signs = signs_for(n);
    auto y = x;
    rotate_chunk(y, signs);
    const auto wanted = by_definition(x, signs);
    double norm = 0;
    for (const auto w : wanted) norm += w * w;
    for (std::size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], wanted[i], 1e-6 * std::sqrt(norm)) << n;
  }
}

TEST(Hadamard, KeepsTheNormAndComesBack) {
  for (std::size_t n = 1; n <= kMaxHadamard; n *= 2) {
    const auto x = layered_update(n);
    auto y = x;
    rotate_chunk(y, signs_for(n));
    double before = 0, after = 0;
    for (std::size_t i = 0; i < n; ++i) before += double(x[i]) * x[i], after += double(y[i]) * y[i];
    EXPECT_NEAR(after / before, 1, 1e-6) << n;
    unrotate_chunk(y, signs_for(n));
    EXPECT_LT(relative_error(x, y), 1e-12) << n;
  }
}

TEST(Hadamard, IsTheSameToTheLastBitOnEveryInstructionSet) {
  std::set<std::string> ran;
  for (std::size_t n = 1; n <= kMaxHadamard; n *= 2) {
    const auto x = layered_update(n, n);
    const auto signs = signs_for(n, n);
    std::vector<std::uint32_t> there, back;
    for (const auto target : simd_targets()) {
      Forced forced(target);
      ran.insert(simd_target());
      const auto bits = [](const std::vector<float>& floats) {
        std::vector<std::uint32_t> out;
        for (const auto f : floats) out.push_back(std::bit_cast<std::uint32_t>(f));
        return out;
      };
      auto y = x;
      rotate_chunk(y, signs);
      if (there.empty()) there = bits(y);
      EXPECT_EQ(bits(y), there) << simd_target() << " " << n;
      unrotate_chunk(y, signs);
      if (back.empty()) back = bits(y);
      EXPECT_EQ(bits(y), back) << simd_target() << " " << n;
    }
  }
  EXPECT_GE(ran.size(), 2u) << "only one way was there to be compared";
}

TEST(RandomRotation, IsOrthonormalForAnyNumberOfFloats) {
  for (const std::size_t n : {0, 1, 2, 3, 5, 63, 64, 100, 1000, 8191, 8192, 8193, 20000, 65536}) {
    const auto x = layered_update(n);
    RandomStream random(3, "rotation");
    const RandomRotation rotation(n, 8192, random);
    auto y = x;
    rotation.apply(y);
    double before = 0, after = 0;
    for (std::size_t i = 0; i < n; ++i) before += double(x[i]) * x[i], after += double(y[i]) * y[i];
    EXPECT_NEAR(after, before, 1e-5 * before) << n;
    rotation.undo(y);
    for (std::size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i], 1e-5 * std::sqrt(before)) << n;
  }
}

/// The fourth moment of a Gaussian is 3. Of one large value among zeros, it is n before a rotation
/// and 1 after; of log-normal values it is far above 3.
TEST(RandomRotation, MakesHeavyTailsGaussianToTheLastFloat) {
  for (const std::size_t n : {5000, 8192, 8200, 30000}) {
    RandomStream random(5, "tails");
    std::vector<float> x(n);
    for (auto& v : x) v = float(std::exp(random.normal()) * (random.below(2) ? 1 : -1));
    RandomRotation(n, 8192, random).apply(x);
    const auto tail = std::span(x).last(n / 4);
    for (const auto part : {std::span(x), tail}) {
      double second = 0, fourth = 0;
      for (const double v : part) second += v * v, fourth += v * v * v * v;
      EXPECT_NEAR(fourth * double(part.size()) / (second * second), 3, 0.5) << n;
    }
  }
}

TEST(RandomRotation, OneStreamGivesOneRotation) {
  const auto rotated = [](std::uint64_t seed) {
    auto x = layered_update(3000);
    RandomStream random(seed, "rotation");
    RandomRotation(x.size(), 1024, random).apply(x);
    return x;
  };
  EXPECT_EQ(rotated(1), rotated(1));
  EXPECT_NE(rotated(1), rotated(2));
}

TEST(Hadamard, MisuseThrows) {
  std::vector<float> x(12);
  EXPECT_THROW(rotate_chunk(x, signs_for(12)), std::logic_error);
  x.resize(64);
  EXPECT_THROW(rotate_chunk(x, signs_for(32)), std::logic_error);
  RandomStream random(1, "rotation");
  EXPECT_THROW(RandomRotation(10, 12, random), std::logic_error);
  EXPECT_THROW(RandomRotation(10, 2 * kMaxHadamard, random), std::logic_error);
  EXPECT_THROW(RandomRotation(10, 8, random).apply(x), std::logic_error);
}

}  // namespace
}  // namespace preceptor::compression::test
