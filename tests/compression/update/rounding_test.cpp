#include "compression/update/rounding.h"

#include <gtest/gtest.h>

#include "tests/compression/update/simd.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

TEST(Rounding, GivesTheSameCodesOnEveryInstructionSetAndTheyAreOnEitherSide) {
  for (const unsigned levels : {1u, 7u, 100u, 127u})
    for (const std::size_t n : {0, 1, 15, 16, 33, 1000}) {
      const auto x = layered_update(n);
      std::vector<std::uint32_t> noise(n);
      RandomStream(2, "noise").fill(noise);
      const float scale = 0.25f;
      Bytes first;
      std::vector<float> first_values;
      for (const auto target : simd_targets()) {
        Forced forced(target);
        Bytes codes(n);
        std::vector<float> values(n);
        round_stochastically(x, scale, levels, noise, codes.data());
        values_of_codes(codes, levels, scale, values.data());
        for (std::size_t i = 0; i < n; ++i) {
          const auto exact = std::clamp(x[i] / scale, -1.0f, 1.0f) * float(levels);
          ASSERT_LE(std::abs(std::to_integer<int>(codes[i]) - int(levels) - exact), 1.0001f);
          ASSERT_EQ(values[i], float(std::to_integer<int>(codes[i]) - int(levels)) *
                                   (1.0f / float(levels)) * scale);
        }
        if (first.empty()) first = codes, first_values = values;
        EXPECT_EQ(codes, first) << levels << " " << n;
        EXPECT_EQ(values, first_values);
      }
    }
}

TEST(Rounding, CodesComeBackFromTheirBitFields) {
  RandomStream random(3, "codes");
  for (const unsigned bits : {2u, 4u, 8u})
    for (const std::size_t fields : {0, 1, 2, 3, 17, 100}) {
      Bytes codes(fields * 8 / bits);
      for (auto& code : codes) code = std::byte(random.below(1u << bits));
      Bytes packed{std::byte{9}};
      pack_codes(codes, bits, packed);
      ASSERT_EQ(packed.size(), 1 + fields) << "behind what is there";
      for (std::size_t i = 0; i < codes.size(); ++i)
        ASSERT_EQ(packed[1 + i * bits / 8] >> i * bits % 8 & std::byte((1u << bits) - 1), codes[i]);
      EXPECT_EQ(unpack_codes(std::span(packed).subspan(1), bits), codes) << bits;
    }
}

/// vNMSE of QSGD with the Euclidean norm of 512 Gaussian values and s levels: the variance of
/// rounding to multiples of |x| / s is sum p (1 - p) over |x|² / s². At s = 1 that is
/// E|x_i| / |x| * 512 - 1, about 17; at 127 steps are fine and it is 512 / (6 · 127²) = 0.0053.
TEST(Qsgd, LosesWhatItsTheorySays) {
  RandomStream random(4, "gaussian");
  std::vector<float> x(1 << 18);
  for (auto& v : x) v = float(random.normal());
  const auto error = [&](const char* levels) {
    const auto pipeline = make({{{"codec", "qsgd"}, {"levels", levels}}});
    return relative_error(x, *pipeline.decode(pipeline.encode(x, 1), x.size()));
  };
  EXPECT_NEAR(error("1"), std::sqrt(512 * 2 / M_PI) - 1, 0.5);
  EXPECT_NEAR(error("7"), 1.58, 0.05);
  EXPECT_NEAR(error("127"), 512 / (6.0 * 127 * 127), 0.0002);
}

TEST(Sign, LosesOneMinusTwoOverPiOfGaussiansAndCostsABit) {
  RandomStream random(5, "gaussian");
  std::vector<float> x(1 << 18);
  for (auto& v : x) v = float(random.normal());
  const auto pipeline = make({{{"codec", "sign"}}});
  const auto bytes = pipeline.encode(x, 1);
  EXPECT_NEAR(relative_error(x, *pipeline.decode(bytes, x.size())), 1 - 2 / M_PI, 0.005);
  EXPECT_LT(double(bytes.size()) * 8, 1.04 * double(x.size()));
}

TEST(Sign, EveryValueKeepsItsSignAndTheBucketItsMeanMagnitude) {
  const auto x = layered_update(1000);
  const auto pipeline = make({{{"codec", "sign"}, {"bucket", "64"}}});
  const auto sent = *pipeline.decode(pipeline.encode(x, 1), x.size());
  for (std::size_t at = 0; at < x.size(); at += 64) {
    const auto end = std::min(x.size(), at + 64);
    double mean = 0;
    for (auto i = at; i < end; ++i) mean += std::abs(x[i]) / double(end - at);
    for (auto i = at; i < end; ++i)
      ASSERT_NEAR(sent[i], std::copysign(mean, x[i]), mean / 200) << "a bfloat16 has 8 bits";
  }
}

/// Bytes of each codec that has kernels do not depend on the CPU that a hospital happens to have.
TEST(Codecs, GiveTheSameBytesAndFloatsOnEveryInstructionSet) {
  for (const auto& name : codecs().names())
    for (const std::size_t n : {1, 333, 70000}) {
      const auto pipeline = make({{{"codec", name}}});
      const auto x = layered_update(n);
      const auto bytes = pipeline.encode(x, 1);
      const auto floats = *pipeline.decode(bytes, n);
      for (const auto target : simd_targets()) {
        Forced forced(target);
        EXPECT_TRUE(pipeline.encode(x, 1) == bytes) << name << " " << n;
        EXPECT_EQ(std::memcmp(pipeline.decode(bytes, n)->data(), floats.data(), n * 4), 0) << name;
      }
    }
}

}  // namespace
}  // namespace preceptor::compression::test
