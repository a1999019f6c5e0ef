#include "common/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "common/bytes.h"
#include "common/hash.h"
#include "common/philox.h"

// Statistical bounds are five standard deviations, or the chi-square quantile at 1e-6: a correct
// generator with another seed would fail one such check about once in a million.
namespace preceptor {
namespace {

using Block = std::array<std::uint32_t, 4>;

// Random123 1.14, tests/kat_vectors, "philox4x32 10".
TEST(Random, PhiloxMatchesThePublishedVectors) {
  EXPECT_EQ(RandomStream::philox({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(RandomStream::philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(RandomStream::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                                 {0xa4093822, 0x299f31d0}),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, AStreamIsPhiloxUnderTheHashOfItsName) {
  Bytes name;
  ByteWriter writer(name);
  writer.put(std::uint64_t{42});
  writer.put(bytes_of("noise"));
  writer.put(bytes_of("/"));
  writer.put(std::uint64_t{7});
  const auto digest = sha256(name);
  std::array<std::uint32_t, 2> key;
  std::memcpy(key.data(), digest.data(), sizeof key);
  RandomStream stream(42, "noise", {7});
  for (std::uint32_t block = 0; block < 3; ++block)
    for (const auto word : RandomStream::philox({block, 0, 0, 0}, key))
      EXPECT_EQ(stream.bits32(), word);
}

TEST(Random, FillDrawsWhatSoManyCallsWould) {
  RandomStream one(1, "fill"), many(1, "fill");
  for (const std::size_t count : {1u, 0u, 4u, 3u, 17u, 2u, 256u}) {
    std::vector<std::uint32_t> batch(count);
    many.fill(batch);
    for (const auto word : batch) EXPECT_EQ(one.bits32(), word);
  }
  EXPECT_EQ(one.bits64(), many.bits64());
}

/// The counter carries into its upper word in the middle of a vector, too.
TEST(Random, BlocksManyAtOnceArePhilox) {
  const std::array<std::uint32_t, 2> key{0x12345678, 0x9abcdef0};
  const std::uint64_t first = 0xfffffffdULL;
  for (const std::size_t blocks : {1, 3, 8, 33}) {
    std::vector<std::uint32_t> words(4 * blocks), wanted;
    for (std::size_t i = 0; i < blocks; ++i)
      for (const auto word : RandomStream::philox(
               {std::uint32_t(first + i), std::uint32_t((first + i) >> 32), 0, 0}, key))
        wanted.push_back(word);
    philox_blocks(key, first, words);
    EXPECT_EQ(words, wanted) << blocks;
  }
}

TEST(Random, StreamsDifferByEachPartOfTheirName) {
  std::set<std::uint64_t> first;
  int streams = 0;
  for (std::uint64_t seed : {0, 1, 2})
    for (const auto* name : {"a", "b", ""})
      for (const auto& indices :
           std::vector<std::vector<std::uint64_t>>{{}, {0}, {1}, {0, 0}, {0, 1}, {1, 0}}) {
        auto stream = indices.empty()       ? RandomStream(seed, name)
                      : indices.size() == 1 ? RandomStream(seed, name, {indices[0]})
                                            : RandomStream(seed, name, {indices[0], indices[1]});
        first.insert(stream.bits64());
        ++streams;
      }
  EXPECT_EQ(first.size(), std::size_t(streams));
}

TEST(Random, AStreamDependsNeitherOnOthersNorOnThreads) {
  const auto draw = [](std::uint64_t index) {
    RandomStream stream(9, "thread", {index});
    std::vector<double> values;
    for (int i = 0; i < 1000; ++i) values.push_back(stream.normal());
    return values;
  };
  std::vector<std::vector<double>> expected, found(4);
  for (std::uint64_t i = 0; i < 4; ++i) expected.push_back(draw(i));
  std::vector<std::jthread> threads;
  for (std::size_t i = 4; i-- > 0;) threads.emplace_back([&, i] { found[i] = draw(i); });
  threads.clear();
  EXPECT_EQ(found, expected);
  RandomStream a(9, "thread", {0}), b(9, "thread", {1});
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(b.normal(), expected[1][std::size_t(i)]);
    ASSERT_EQ(a.normal(), expected[0][std::size_t(i)]);
  }
}

double chi_square(const std::vector<int>& counts, double expected) {
  double sum = 0;
  for (const int count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

TEST(Random, UniformIsUniformAndStaysBelowOne) {
  RandomStream stream(3, "uniform");
  std::vector<int> counts(100);
  for (int i = 0; i < 1000000; ++i) {
    const auto x = stream.uniform();
    ASSERT_GE(x, 0);
    ASSERT_LT(x, 1);
    ++counts[std::size_t(x * 100)];
  }
  EXPECT_LT(chi_square(counts, 10000), 181);  // 99 degrees of freedom
  for (int i = 0; i < 1000; ++i) {
    const auto x = stream.uniform(-2, 5);
    ASSERT_GE(x, -2);
    ASSERT_LT(x, 5);
  }
}

TEST(Random, BelowIsExactlyUniformForEveryBound) {
  RandomStream stream(4, "below");
  std::vector<int> counts(10);
  for (int i = 0; i < 100000; ++i) {
    const auto x = stream.below(10);
    ASSERT_LT(x, 10u);
    ++counts[x];
  }
  EXPECT_LT(chi_square(counts, 10000), 46);  // 9 degrees of freedom
  // With a plain remainder the lowest third of this bound would be drawn half of the time.
  constexpr auto kBound = std::uint64_t{3} << 62;
  int low = 0;
  for (int i = 0; i < 90000; ++i) {
    const auto x = stream.below(kBound);
    ASSERT_LT(x, kBound);
    low += x < kBound / 3;
  }
  EXPECT_NEAR(low, 30000, 5 * std::sqrt(90000 * (1.0 / 3) * (2.0 / 3)));
  EXPECT_EQ(stream.below(1), 0u);
  EXPECT_THROW(stream.below(0), std::logic_error);
}

TEST(Random, NormalHasTheMomentsOfTheNormal) {
  RandomStream stream(5, "normal");
  constexpr int kCount = 1000000;
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  for (int i = 0; i < kCount; ++i) {
    const auto x = stream.normal();
    m1 += x, m2 += x * x, m3 += x * x * x, m4 += x * x * x * x;
  }
  const auto sigma = 1 / std::sqrt(double(kCount));
  EXPECT_NEAR(m1 / kCount, 0, 5 * sigma);
  EXPECT_NEAR(m2 / kCount, 1, 5 * std::sqrt(2.0) * sigma);
  EXPECT_NEAR(m3 / kCount, 0, 5 * std::sqrt(15.0) * sigma);
  EXPECT_NEAR(m4 / kCount, 3, 5 * std::sqrt(96.0) * sigma);
}

TEST(Random, GammaHasTheMomentsOfTheGamma) {
  RandomStream stream(6, "gamma");
  constexpr int kCount = 400000;
  for (const double shape : {0.3, 1.0, 4.5}) {
    double sum = 0, squares = 0;
    for (int i = 0; i < kCount; ++i) {
      const auto x = stream.gamma(shape);
      ASSERT_GE(x, 0);
      sum += x, squares += (x - shape) * (x - shape);
    }
    EXPECT_NEAR(sum / kCount, shape, 5 * std::sqrt(shape / kCount)) << shape;
    EXPECT_NEAR(squares / kCount, shape, 5 * std::sqrt((2 * shape * shape + 6 * shape) / kCount))
        << shape;
  }
}

TEST(Random, APermutationHasEveryIndexOnceAndEachOrderIsAsLikely) {
  RandomStream stream(7, "permutation");
  auto order = stream.permutation(1000);
  EXPECT_FALSE(std::ranges::is_sorted(order));
  std::ranges::sort(order);
  for (std::size_t i = 0; i < order.size(); ++i) ASSERT_EQ(order[i], i);
  EXPECT_TRUE(stream.permutation(0).empty());
  std::vector<int> counts(6);
  for (int i = 0; i < 60000; ++i) {
    const auto three = stream.permutation(3);
    ++counts[three[0] * 2 + (three[1] > three[2])];
  }
  EXPECT_LT(chi_square(counts, 10000), 36);  // 5 degrees of freedom
}

}  // namespace
}  // namespace preceptor
