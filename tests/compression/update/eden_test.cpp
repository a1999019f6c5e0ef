#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "compression/update/hadamard.h"
#include "compression/update/lloyd_max.h"
#include "tests/compression/update/simd.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * M_PI); }
double above(double x) { return std::erfc(x / std::sqrt(2)) / 2; }

/// Lloyd's two conditions: a level is the mean of a Gaussian in its cell, a bound lies halfway
/// between its levels. And the squared errors of Max 1960, table I.
TEST(LloydMax, LevelsAndBoundsAreOptimal) {
  const double published[] = {0.3634, 0.1175, 0.03454, 0.009497};
  for (unsigned bits = 1; bits <= 4; ++bits) {
    const auto& q = lloyd_max(bits);
    ASSERT_EQ(q.levels.size(), 1u << (bits - 1));
    ASSERT_EQ(q.bounds.size() + 1, q.levels.size());
    double error = 1;
    for (std::size_t i = 0; i < q.levels.size(); ++i) {
      const double low = i == 0 ? 0 : q.bounds[i - 1];
      const double high = i + 1 == q.levels.size() ? 40 : q.bounds[i];
      const auto mass = above(low) - above(high);
      EXPECT_NEAR(q.levels[i], (density(low) - density(high)) / mass, 1e-6) << bits;
      if (i > 0) {
        EXPECT_NEAR(low, (double(q.levels[i]) + q.levels[i - 1]) / 2, 1e-6) << bits;
      }
      error -= 2 * mass * q.levels[i] * q.levels[i];
    }
    EXPECT_NEAR(error, published[bits - 1], 1e-3 * published[bits - 1] + 5e-7) << bits;
  }
}

TEST(LloydMax, EveryValueGoesToTheNearestLevelAndComesBackAsIt) {
  for (unsigned bits = 1; bits <= 4; ++bits) {
    const auto& q = lloyd_max(bits);
    for (const std::size_t n : {1, 16, 17, 1000}) {
      auto x = layered_update(n);
      for (auto& v : x) v *= 20;
      const auto stride = plane_bytes(n) + 2;
      Bytes planes(stride * bits);
      const auto product = quantise_planes(q, x, 0, n, 0.5f, planes.data(), stride);
      std::vector<float> back(n);
      dequantise_planes(q, back, 0, n, 1, planes.data(), stride);
      double expected = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const double u = x[i] * 0.5f;
        auto nearest = q.levels[0];
        for (const auto level : q.levels)
          if (std::abs(std::abs(u) - level) < std::abs(std::abs(u) - nearest)) nearest = level;
        ASSERT_EQ(back[i], u < 0 ? -nearest : nearest) << u;
        expected += std::abs(u) * nearest;
      }
      EXPECT_NEAR(product, expected, 1e-5 * expected);
    }
  }
}

CodecSettings eden(int bits, const std::string& scale = "unbiased") {
  return {{"codec", "eden"}, {"bits", std::to_string(bits)}, {"scale", scale}};
}

std::vector<float> vector_of(const std::string& kind, std::size_t n) {
  if (kind == "layers") return layered_update(n);
  RandomStream random(11, kind);
  std::vector<float> x(n);
  for (auto& v : x)
    v = float(kind == "gaussian" ? random.normal()
                                 : std::exp(random.normal()) * (random.below(2) ? 1 : -1));
  return x;
}

/// vNMSE of EDEN: 0.571, 0.133, 0.0358 and 0.0096 within 2 %, whatever the values' distribution;
/// the tail that is no whole chunk included.
TEST(Eden, LosesWhatItsTheorySaysOnEveryDistribution) {
  const double theory[] = {0.5708, 0.1331, 0.03578, 0.009592};
  for (const auto* kind : {"gaussian", "lognormal", "layers"})
    for (const std::size_t n : {std::size_t{1} << 20, std::size_t{351017}}) {
      const auto x = vector_of(kind, n);
      for (int bits = 1; bits <= 4; ++bits) {
        const auto pipeline = make({eden(bits)});
        const auto bytes = pipeline.encode(x, 1);
        const auto error = relative_error(x, *pipeline.decode(bytes, n));
        EXPECT_NEAR(error, theory[bits - 1], 0.02 * theory[bits - 1]) << kind << " " << bits;
        EXPECT_LT(double(bytes.size()) * 8 / double(n), bits + 0.02) << "scales and seeds";
      }
    }
}

/// With |y|^2 replaced by <y, Q> / <Q, Q> the error is the quantiser's own, 1 - 2 / pi at one bit.
TEST(Eden, TheLeastScaleLosesTheQuantisersErrorAlone) {
  const double theory[] = {0.3634, 0.1175, 0.03455, 0.009501};
  const auto x = vector_of("lognormal", 1 << 18);
  for (int bits = 1; bits <= 4; ++bits) {
    const auto pipeline = make({eden(bits, "least")});
    EXPECT_FALSE(pipeline.unbiased());
    EXPECT_NEAR(relative_error(x, *pipeline.decode(pipeline.encode(x, 1), x.size())),
                theory[bits - 1], 0.02 * theory[bits - 1]);
  }
}

/// The mean of updates of many sites has their error divided by their number: no common bias.
TEST(Eden, ErrorsOfManySitesAverageOut) {
  const auto x = vector_of("lognormal", 20000);
  const auto pipeline = make({eden(1)});
  constexpr int kSites = 64;
  std::vector<float> mean(x.size());
  for (std::uint64_t site = 0; site < kSites; ++site) {
    const auto sent = *pipeline.decode(pipeline.encode(x, site), x.size());
    for (std::size_t i = 0; i < x.size(); ++i) mean[i] += sent[i] / kSites;
  }
  EXPECT_NEAR(relative_error(x, mean) * kSites, 0.5708, 0.03);
}

/// Few nonzeros, or one value that dominates: one rotation would leave the same few magnitudes
/// whatever its signs, and of {1, 0.55} one bit would always make {1.3, 0}. The error is the
/// theory's here, too, and the mean of many decodings is the update.
TEST(Eden, OfFewValuesNoneIsLostOnAverage) {
  const double theory[] = {0.5708, 0.1331, 0.03578, 0.009592};
  constexpr int kRuns = 2000;
  for (const std::size_t n : {1024, 8192})
    for (const auto& few : std::vector<std::vector<float>>{{1}, {1, 0.55f}, {1, 0.61f, -0.32f}})
      for (const float noise : {0.0f, 0.1f / std::sqrt(float(n))}) {
        auto x = vector_of("gaussian", n);
        for (auto& value : x) value *= noise;
        for (std::size_t i = 0; i < few.size(); ++i) x[i * 300 + 7] = few[i];
        for (int bits = 1; bits <= 4; ++bits) {
          const auto pipeline = make({eden(bits)});
          double error = 0;
          std::vector<double> mean(few.size());
          for (std::uint64_t run = 0; run < kRuns; ++run) {
            const auto sent = *pipeline.decode(pipeline.encode(x, run), n);
            error += relative_error(x, sent) / kRuns;
            for (std::size_t i = 0; i < few.size(); ++i) mean[i] += sent[i * 300 + 7] / kRuns;
          }
          EXPECT_NEAR(error, theory[bits - 1], 0.02 * theory[bits - 1]) << n << " " << few.size();
          // Five deviations of the mean, and what the codec says of its bias.
          const auto slack = 5 * std::sqrt(1.5 / double(n) / kRuns) + 0.002;
          for (std::size_t i = 0; i < few.size(); ++i)
            EXPECT_NEAR(mean[i], few[i], slack) << n << " " << bits;
        }
      }
}

/// Each chunk says for itself whether it was rotated twice.
TEST(Eden, RotationsThatDifferFromChunkToChunkAreUndone) {
  const auto pipeline = make({eden(4)});
  for (const std::size_t n : {1, 2, 3, 65, 100, 127, 130, 8193, 8250, 12000, 30000, 65536})
    for (const std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
      auto x = vector_of("gaussian", n);
      x[at] = 1000;
      double error = 0;
      for (std::uint64_t run = 0; run < 20; ++run)
        error += relative_error(x, *pipeline.decode(pipeline.encode(x, run), n)) / 20;
      EXPECT_LT(error, 0.05) << n << " " << at;
    }
}

TEST(Eden, GivesTheSameBytesAndFloatsOnEveryInstructionSet) {
  std::set<std::string> ran;
  for (const std::size_t n : {1, 5, 100, 8191, 8192, 20001, 65536})
    for (int bits = 1; bits <= 4; ++bits)
      for (const auto* scale : {"unbiased", "least"}) {
        const auto x = layered_update(n);
        const auto pipeline = make({eden(bits, scale)});
        const auto bytes = pipeline.encode(x, 1);
        const auto floats = *pipeline.decode(bytes, n);
        for (const auto target : simd_targets()) {
          Forced forced(target);
          ran.insert(simd_target());
          EXPECT_EQ(pipeline.encode(x, 1), bytes) << simd_target() << " " << n << " " << bits;
          EXPECT_EQ(std::memcmp(pipeline.decode(bytes, n)->data(), floats.data(), n * 4), 0)
              << simd_target() << " " << n << " " << bits;
        }
      }
  EXPECT_GE(ran.size(), 2u) << "only one way was there to be compared";
}

TEST(Eden, AScaleOrPaddingThatNoEncoderWritesIsRefused) {
  const auto decode = [](const std::string& scale,
                         std::vector<std::pair<std::size_t, int>> damage) {
    auto codec = std::move(*(**codecs().find("eden"))({{"bits", "1"}, {"scale", scale}}));
    RandomStream random(1, "eden-test");
    Packet packet{{1, 2, 3}, {}};
    codec->encode(packet, random);
    EXPECT_EQ(packet.bytes.size(), 1u + 8 + 2 * 4 + 1)
        << "count, seed, scales of two chunks, signs";
    for (const auto& [at, value] : damage) packet.bytes[at] = std::byte(value);
    const auto decoded = codec->decode(packet, 3);
    return decoded ? "ok" : decoded.error().message;
  };
  EXPECT_EQ(decode("unbiased", {{17, 7}}), "ok");
  EXPECT_THAT(decode("unbiased", {{17, 8}}), testing::HasSubstr("padding"));
  EXPECT_THAT(decode("unbiased", {{11, 0xff}, {12, 0x7f}}), testing::HasSubstr("scale"));
  EXPECT_THAT(decode("unbiased", {{11, 0xff}, {12, 0xff}}), testing::HasSubstr("scale"));
  EXPECT_THAT(decode("unbiased", {{0, 4}}), testing::HasSubstr("in a tile of 3"));
  EXPECT_EQ(decode("unbiased", {{12, 0x3f}}), "ok") << "rotated once";
  EXPECT_EQ(decode("unbiased", {{12, 0xbf}}), "ok") << "rotated twice";
  EXPECT_EQ(decode("least", {{12, 0x3f}}), "ok");
  EXPECT_THAT(decode("least", {{12, 0xbf}}), testing::HasSubstr("scale"));
}

TEST(Eden, SettingsOutOfRangeAreRefused) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, std::string>>{
           {"bits", "0"}, {"bits", "5"}, {"chunk", "1000"}, {"chunk", "32768"}, {"scale", "best"}})
    EXPECT_FALSE((**codecs().find("eden"))({{key, value}})) << key << " " << value;
}

}  // namespace
}  // namespace preceptor::compression::test
