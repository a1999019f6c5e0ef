#include "privacy/differential_privacy/ring_noise.h"

#include <gtest/gtest.h>

#include <cmath>

namespace preceptor::privacy {
namespace {

std::int32_t centred(std::uint32_t word, int bits) { return std::int32_t(word << (32 - bits)) >> (32 - bits); }

// Fixed seeds; false alarm 1e-6 of the seeds (4.9 deviations of the estimate).
TEST(RingNoise, TheFewestHonestNodesAddTheWholeNoiseTogether) {
  const int bits = 20;
  const std::size_t size = 200'000;
  for (const auto noise : {Noise::kDiscreteGaussian, Noise::kSkellam}) {
    const double sigma = noise == Noise::kSkellam ? 12 : 300;
    const auto share = RingNoise::create(noise, sigma, 5);
    ASSERT_TRUE(share);
    std::vector<std::uint32_t> sum(size);
    for (std::uint64_t node = 0; node < 5; ++node) {
      std::vector<std::uint32_t> words(size, 1'000'000 & ((1u << bits) - 1));
      ASSERT_TRUE(share->add(words, bits, *seeded_source(RandomStream(3, "node", {node}))));
      for (std::size_t i = 0; i < size; ++i) {
        ASSERT_LT(words[i], 1u << bits);
        sum[i] = (sum[i] + words[i]) & ((1u << bits) - 1);
      }
    }
    const auto signal = std::uint32_t(5'000'000u & ((1u << bits) - 1));
    double square = 0, mean = 0;
    for (const auto word : sum) {
      const double x = centred((word - signal) & ((1u << bits) - 1), bits);
      square += x * x / double(size);
      mean += x / double(size);
    }
    EXPECT_NEAR(mean, 0, 4.9 * sigma / std::sqrt(size));
    EXPECT_NEAR(square, sigma * sigma, 4.9 * std::sqrt(2.1 / size) * sigma * sigma);
    EXPECT_GE(share->deviation(5), sigma);
    EXPECT_LT(share->deviation(5), sigma * 1.001);
    EXPECT_NEAR(share->deviation(20), 2 * sigma, 0.002 * sigma);
  }
}

TEST(RingNoise, WordsOfEveryWidthWrapAndDoNotSpill) {
  const auto share = RingNoise::create(Noise::kDiscreteGaussian, 50, 3).value();
  for (int bits = 2; bits <= 32; ++bits) {
    const std::uint32_t mask = ~0u >> (32 - bits);
    std::vector<std::uint32_t> zero(5000), high(5000, mask);
    ASSERT_TRUE(share.add(zero, bits, *seeded_source(RandomStream(4, "wrap"))));
    ASSERT_TRUE(share.add(high, bits, *seeded_source(RandomStream(4, "wrap"))));
    for (std::size_t i = 0; i < zero.size(); ++i) ASSERT_EQ(high[i], (zero[i] - 1) & mask) << bits;
  }
}

TEST(RingNoise, TheAccountantIsToldOfTheHonestNodesAlone) {
  const auto share = RingNoise::create(Noise::kDiscreteGaussian, 100, 4).value();
  const auto m = share.mechanism(10, 40, 1000, 0.5);
  EXPECT_EQ(m.integers.shares, 4u);
  EXPECT_EQ(m.sampling_rate, 0.5);
  EXPECT_DOUBLE_EQ(m.integers.deviation, 50);
  EXPECT_TRUE(check(m));
  EXPECT_NEAR(discrete_gaussian_rdp(m.integers, 2), 100 / 10000.0, 1e-12);  // α l2² / 2σ²
}

TEST(RingNoise, NoiseThatNoSamplerMakesIsRefused) {
  EXPECT_FALSE(RingNoise::create(Noise::kDiscreteGaussian, 100, 0));
  EXPECT_FALSE(RingNoise::create(Noise::kDiscreteGaussian, 1e10, 1));
  EXPECT_FALSE(RingNoise::create(Noise::kSkellam, 100, 3));
  EXPECT_FALSE(RingNoise::create(Noise::kDiscreteGaussian, std::nan(""), 3));
}

TEST(RingNoise, TheModulusHoldsItsSumExactlyAtTheBoundary) {
  EXPECT_EQ(ring_room(1024, 1, (1 << 19) - 1, 0), 1024.0 * ((1 << 19) - 1));
  EXPECT_EQ(ring_bits_for(ring_room(1024, 1, (1 << 19) - 1, 0)).value(), 30);  // 2 spare bits of 32
  EXPECT_TRUE(check_ring(8, 127));
  EXPECT_FALSE(check_ring(8, 128));
  EXPECT_EQ(ring_bits_for(127).value(), 8);
  EXPECT_EQ(ring_bits_for(128).value(), 9);
  EXPECT_EQ(ring_bits_for(ring_room(10, 1, 7, 15)).value(), 9);  // 70 + 90 = 160
  EXPECT_FALSE(ring_bits_for(std::ldexp(1, 31)));
  EXPECT_TRUE(ring_bits_for(std::ldexp(1, 31) - 1));
}

}  // namespace
}  // namespace preceptor::privacy
