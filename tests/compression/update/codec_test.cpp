// The contract of compression/update/codec.h, over every registered codec: one more codec is tested
// by existing, with its default settings.
#include <gtest/gtest.h>

#include <limits>

#include "compression/update/passes.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

class AnyCodec : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    auto made = (**codecs().find(GetParam()))({});
    ASSERT_TRUE(made) << "defaults must do: " << made.error().message;
    codec = std::move(*made);
  }
  Packet encode(std::vector<float> values, Bytes bytes = {}, std::uint64_t seed = 1) const {
    Packet packet{std::move(values), std::move(bytes)};
    RandomStream random(seed, "codec-test");
    codec->encode(packet, random);
    return packet;
  }
  /// Its values are not those of the update, but of a rotation of it.
  bool rotates() const { return GetParam() == "eden"; }
  std::unique_ptr<Codec> codec;
};

const std::vector<std::size_t>& counts() {
  static const std::vector<std::size_t> kCounts{0, 1, 2, 7, 255, 256, 257, 1000, Pipeline::kTile};
  return kCounts;
}

TEST_P(AnyCodec, KeepsTheShapeAndTheEarlierStagesBytes) {
  const Bytes earlier{std::byte{1}, std::byte{2}, std::byte{3}};
  for (const auto n : counts()) {
    auto packet = encode(layered_update(n), earlier);
    const auto decoded = codec->decode(packet, n);
    ASSERT_TRUE(decoded) << n << ": " << decoded.error().message;
    EXPECT_EQ(packet.values.size(), n);
    EXPECT_EQ(packet.bytes, earlier) << n;
  }
}

TEST_P(AnyCodec, HonoursItsBoundAndSaysWhatItLeaves) {
  const Bytes earlier(100, std::byte{7});
  for (const auto n : counts()) {
    const auto packet = encode(layered_update(n), earlier);
    EXPECT_LE(packet.bytes.size(), codec->size_bound(n, earlier.size())) << n;
    EXPECT_EQ(packet.values.size(), n == 0 ? 0 : codec->values_left(n)) << n;
  }
}

TEST_P(AnyCodec, TheSameStreamGivesTheSameBytes) {
  const auto update = layered_update(5000);
  const auto a = encode(update, {}, 3), b = encode(update, {}, 3);
  EXPECT_EQ(a.bytes, b.bytes);
  EXPECT_EQ(a.values, b.values);
}

TEST_P(AnyCodec, MoreFloatsThanTheTileMayHaveAreRefused) {
  for (const auto n : counts()) {
    if (n == 0) continue;
    auto packet = encode(layered_update(n));
    EXPECT_FALSE(codec->decode(packet, n - 1)) << n;
  }
}

TEST_P(AnyCodec, NoDamageCrashesItOrMakesItExceedTheTile) {
  RandomStream random(1, "damage");
  constexpr std::size_t kFloats = 300;
  const auto whole = encode(layered_update(kFloats), {std::byte{9}});
  for (int run = 0; run < 3000; ++run) {
    auto packet = whole;
    for (auto flips = 1 + random.below(3); flips > 0; --flips)
      packet.bytes[random.below(packet.bytes.size())] ^= std::byte(1 << random.below(8));
    if (random.below(3) == 0) packet.bytes.resize(random.below(packet.bytes.size()));
    const auto decoded = codec->decode(packet, kFloats);
    if (decoded) {
      ASSERT_LE(packet.values.size(), kFloats);
    } else {
      ASSERT_EQ(decoded.error().code, Code::kCorrupt);
    }
  }
}

TEST_P(AnyCodec, EmptyBytesAreNotAnEncoding) {
  Packet packet;
  EXPECT_FALSE(codec->decode(packet, 100));
}

TEST_P(AnyCodec, ExtremeValuesComeBackFinite) {
  constexpr auto kMax = std::numeric_limits<float>::max(),
                 kMin = std::numeric_limits<float>::denorm_min();
  for (const auto& values : std::vector<std::vector<float>>{std::vector<float>(500, 0.0f),
                                                            {kMax, -kMax, 1, 0},
                                                            {kMin, -kMin, 0, 3 * kMin},
                                                            {-0.0f},
                                                            std::vector<float>(300, -kMax),
                                                            {kMax, kMin}}) {
    auto packet = encode(values);
    const auto decoded = codec->decode(packet, values.size());
    ASSERT_TRUE(decoded) << decoded.error().message;
    ASSERT_EQ(packet.values.size(), values.size());
    double norm = 0, given = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_TRUE(std::isfinite(packet.values[i])) << values[i];
      norm = std::hypot(norm, packet.values[i]), given = std::hypot(given, values[i]);
      if (rotates()) continue;
      // No codec turns a value round or makes it larger than the block's largest (plus 16 bits'
      // rounding).
      EXPECT_LE(std::abs(packet.values[i]), std::abs(values[0]) * 1.01 + 4 * kMin) << values[i];
      EXPECT_GE(packet.values[i] * values[i], 0) << values[i];
    }
    EXPECT_LE(norm, 2 * given + 4 * kMin);
  }
}

/// Mean of many encodings against the input, value by value: |z| > 5.5 in any of 5000 values has a
/// chance of 2e-4 for a codec that is unbiased. Sparse updates, too, and such as one value
/// dominates: a rotation leaves those far from Gaussian.
TEST_P(AnyCodec, IsUnbiasedWhereItSaysSo) {
  if (!codec->unbiased()) GTEST_SKIP() << "biased, and says so";
  std::vector<std::vector<float>> updates{layered_update(257), std::vector<float>(1024),
                                          std::vector<float>(1024), std::vector<float>(1000),
                                          layered_update(1024)};
  updates[1][70] = 1, updates[1][500] = 0.55f;
  updates[2][3] = 1, updates[2][411] = -0.61f, updates[2][1023] = 0.32f;
  updates[3][500] = 1, updates[3][501] = 0.7f, updates[3][999] = 0.2f;  // where chunks overlap
  updates[4][9] = 20 * largest_magnitude(updates[4]);
  constexpr int kRuns = 4000;
  for (const auto& update : updates) {
    std::vector<double> sum(update.size()), squares(update.size());
    for (int run = 0; run < kRuns; ++run) {
      auto packet = encode(update, {}, std::uint64_t(run));
      ASSERT_TRUE(codec->decode(packet, update.size()));
      for (std::size_t i = 0; i < update.size(); ++i) {
        const auto error = double(packet.values[i]) - update[i];
        sum[i] += error, squares[i] += error * error;
      }
    }
    for (std::size_t i = 0; i < update.size(); ++i) {
      const auto sigma = std::sqrt(squares[i]);  // of the sum, when the mean is zero
      EXPECT_LE(std::abs(sum[i]), 5.5 * sigma + kRuns * 1e-6 * std::abs(update[i])) << update[i];
    }
  }
}

TEST_P(AnyCodec, AnUnknownSettingNamesTheCodecAndTheKey) {
  const auto made = (**codecs().find(GetParam()))({{"no_such_key", "1"}});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kInvalid);
  EXPECT_EQ(made.error().message.find(GetParam() + ": no_such_key: unknown key"), 0u)
      << made.error().message;
}

INSTANTIATE_TEST_SUITE_P(Registered, AnyCodec, testing::ValuesIn(codecs().names()),
                         [](const auto& made) { return made.param; });

TEST(Codecs, AreAllLinked) {
  const auto names = codecs().names();
  for (const auto* name : {"cast16", "eden", "qsgd", "quantize", "sign", "topk", "zstd"})
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
}

}  // namespace
}  // namespace preceptor::compression::test
