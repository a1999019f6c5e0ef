// What each codec promises beyond the common contract.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zstd.h>

#include "common/half.h"
#include "compression/update/bits.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

using testing::HasSubstr;

std::unique_ptr<Codec> codec(const std::string& name, const CodecSettings& settings = {}) {
  auto made = (**codecs().find(name))(settings);
  if (!made) throw std::logic_error(made.error().message);
  return std::move(*made);
}

std::vector<float> there_and_back(const std::vector<float>& update,
                                  const std::vector<CodecSettings>& stages,
                                  std::uint64_t seed = 1) {
  const auto pipeline = make(stages);
  return *pipeline.decode(pipeline.encode(update, seed), update.size());
}

TEST(TopK, KeepsTheLargestMagnitudesAndTheEarlierOfEquals) {
  EXPECT_THAT(there_and_back({1, -5, 3, 0, -3, 3, 2, 3, 0.5, -1},
                             {{{"codec", "topk"}, {"fraction", "0.3"}}}),
              testing::ElementsAre(0, -5, 3, 0, -3, 0, 0, 0, 0, 0));
  EXPECT_THAT(there_and_back({1, 1, 1}, {{{"codec", "topk"}, {"fraction", "0.01"}}}),
              testing::ElementsAre(1, 0, 0));
}

TEST(TopK, AgreesWithASortOnEveryFraction) {
  auto update = layered_update(3001);
  for (std::size_t i = 0; i < update.size(); i += 3)
    update[i] = float(int(update[i] * 1000)) / 1000;  // equals, zeros
  std::vector<std::size_t> order(update.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::ranges::stable_sort(
      order, [&](auto a, auto b) { return std::abs(update[a]) > std::abs(update[b]); });
  for (const double fraction : {0.0001, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.999, 1.0}) {
    const auto kept = std::size_t(std::ceil(fraction * double(update.size())));
    std::vector<float> expected(update.size());
    for (std::size_t i = 0; i < kept; ++i) expected[order[i]] = update[order[i]];
    EXPECT_EQ(
        there_and_back(update, {{{"codec", "topk"}, {"fraction", fmt::format("{}", fraction)}}}),
        expected)
        << fraction;
  }
}

/// Entropy of which tenth is kept: 0.469 bits a value. A byte a gap would be 0.8.
TEST(TopK, IndicesOfSpreadValuesCostLittleMoreThanTheirEntropy) {
  RandomStream random(1, "spread");
  std::vector<float> values(Pipeline::kTile);
  for (auto& x : values) x = float(random.normal());
  Packet packet{values, {}};
  codec("topk")->encode(packet, random);
  EXPECT_LT(double(packet.bytes.size()) * 8 / double(values.size()), 0.49);
}

TEST(TopK, AnIndexPastTheEndIsRefused) {
  const auto topk = codec("topk", {{"fraction", "0.5"}});
  const auto decode = [&](std::initializer_list<int> bytes, std::size_t kept) {
    Packet packet{std::vector<float>(kept, 1.0f), {}};
    for (const int b : bytes) packet.bytes.push_back(std::byte(b));
    const auto decoded = topk->decode(packet, 4);
    return decoded ? "ok" : decoded.error().message;
  };
  EXPECT_EQ(decode({4, 0, 0b1001}, 2), "ok") << "gaps 0 and 2, in unary";
  EXPECT_THAT(decode({4, 0, 0b10001}, 2), HasSubstr("broken bit field")) << "gaps 0 and 3";
  EXPECT_THAT(decode({4, 0, 0b11000}, 2), HasSubstr("broken bit field"))
      << "no room for the second";
  EXPECT_THAT(decode({4, 0, 0b0001}, 2), HasSubstr("broken bit field")) << "cut short";
  EXPECT_THAT(decode({4, 0, 0b11001}, 2), HasSubstr("broken bit field")) << "padding is not zero";
  EXPECT_THAT(decode({4, 0, 0b1001}, 1), HasSubstr("1 of 4 values"));
  EXPECT_THAT(decode({5, 0, 0b1001, 0}, 3), HasSubstr("in a tile of 4"));
  EXPECT_THAT(decode({4, 21, 0b1001}, 2), HasSubstr("Rice parameter 21"));
}

TEST(Bits, EveryRiceCodeComesBack) {
  RandomStream random(1, "rice");
  for (unsigned k = 0; k <= 30; ++k) {
    std::vector<std::uint64_t> values;
    for (int i = 0; i < 200; ++i)
      values.push_back(random.below(1 + (std::uint64_t{1} << k) * (1 + random.below(150))));
    Bytes bytes;
    BitWriter writer(bytes);
    for (const auto value : values) writer.rice(value, k);
    writer.finish();
    BitReader reader(bytes);
    for (const auto value : values) ASSERT_EQ(*reader.rice(k, value), value) << k;
    EXPECT_EQ(*reader.finish(), bytes.size());
    BitReader strict(bytes);
    if (values[0] > 0) {
      EXPECT_FALSE(strict.rice(k, values[0] - 1));
    }
  }
}

TEST(Quantize, NoValueIsFurtherThanAStepNorClipped) {
  const auto update = layered_update(5000);
  for (const int bits : {2, 4, 8}) {
    const auto decoded = there_and_back(
        update, {{{"codec", "quantize"}, {"bits", std::to_string(bits)}, {"block", "250"}}});
    const int levels = (1 << (bits - 1)) - 1;
    for (std::size_t at = 0; at < update.size(); at += 250) {
      float largest = 0;
      for (std::size_t i = at; i < at + 250; ++i) largest = std::max(largest, std::abs(update[i]));
      const auto scale = from_bf16(to_bf16_up(largest));
      EXPECT_LE(scale, largest * (1 + 1.0f / 128));
      for (std::size_t i = at; i < at + 250; ++i)
        ASSERT_LE(std::abs(update[i] - decoded[i]), scale / float(levels) * 1.0001f) << bits;
    }
  }
}

TEST(Quantize, ValuesOnALevelAreExact) {
  std::vector<float> update;
  for (int level = -127; level <= 127; ++level) update.push_back(float(level) / 127);
  const auto decoded = there_and_back(update, {{{"codec", "quantize"}}});
  for (std::size_t i = 0; i < update.size(); ++i) EXPECT_NEAR(decoded[i], update[i], 1e-6);
  EXPECT_THAT(there_and_back({3, -3, 0, 3}, {{{"codec", "quantize"}, {"bits", "2"}}}),
              testing::ElementsAre(3, -3, 0, 3));
}

/// A value that lies a share f of a step above a level loses step^2 f (1 - f) on the average. For
/// Gaussian blocks of 256 that makes a vNMSE near 1e-4, 3.2e-2 and 1.4 for 8, 4 and 2 bits. The
/// standard deviation of the measured ratio is under 0.2 %: the sum has 2^18 independent terms.
TEST(Quantize, ItsErrorIsThatOfStochasticRounding) {
  RandomStream random(1, "gaussian");
  std::vector<float> update(1 << 18);
  for (auto& x : update) x = float(random.normal());
  for (const int bits : {2, 4, 8}) {
    double expected = 0, all = 0;
    for (std::size_t at = 0; at < update.size(); at += 256) {
      const auto block = std::span(update).subspan(at, 256);
      const auto largest = std::ranges::max(block, {}, [](float x) { return std::abs(x); });
      const auto step = from_bf16(to_bf16_up(std::abs(largest))) / ((1 << (bits - 1)) - 1);
      for (const double x : block) {
        const auto f = x / step - std::floor(x / step);
        expected += step * step * f * (1 - f), all += x * x;
      }
    }
    const auto decoded =
        there_and_back(update, {{{"codec", "quantize"}, {"bits", std::to_string(bits)}}});
    EXPECT_NEAR(relative_error(update, decoded) / (expected / all), 1, 0.01) << bits;
    EXPECT_LT(expected / all, bits == 8 ? 1.1e-4 : bits == 4 ? 3.5e-2 : 1.5);
  }
}

/// Contract test of unbiasedness for the settings that the defaults leave out; |z| > 5.5 in any of
/// 2 x 257.
TEST(Quantize, FewBitsAreUnbiasedToo) {
  const auto update = layered_update(257);
  for (const auto* bits : {"2", "4"}) {
    constexpr int kRuns = 4000;
    std::vector<double> sum(update.size()), squares(update.size());
    for (int run = 0; run < kRuns; ++run) {
      const auto decoded =
          there_and_back(update, {{{"codec", "quantize"}, {"bits", bits}}}, std::uint64_t(run));
      for (std::size_t i = 0; i < update.size(); ++i) {
        const auto error = double(decoded[i]) - update[i];
        sum[i] += error, squares[i] += error * error;
      }
    }
    for (std::size_t i = 0; i < update.size(); ++i)
      EXPECT_LE(std::abs(sum[i]), 5.5 * std::sqrt(squares[i]) + kRuns * 1e-6 * std::abs(update[i]))
          << bits;
  }
}

TEST(Quantize, WhatItNeverWritesIsRefused) {
  const auto quantize = codec("quantize", {{"bits", "4"}});
  const auto decode = [&](std::initializer_list<int> bytes) {
    Packet packet;
    for (const int b : bytes) packet.bytes.push_back(std::byte(b));
    const auto decoded = quantize->decode(packet, 4);
    return decoded ? "ok" : decoded.error().message;
  };
  EXPECT_EQ(decode({1, 0x80, 0x3f, 0x0e}), "ok");
  EXPECT_THAT(decode({1, 0x80, 0x3f, 0x0f}), HasSubstr("a level outside -7 … 7"));
  EXPECT_THAT(decode({1, 0x80, 0x3f, 0x1e}), HasSubstr("a level outside")) << "padding is zero";
  EXPECT_THAT(decode({1, 0x80, 0x7f, 0x0e}), HasSubstr("a scale")) << "infinity";
  EXPECT_THAT(decode({1, 0xc0, 0x7f, 0x0e}), HasSubstr("a scale")) << "NaN";
  EXPECT_THAT(decode({1, 0x80, 0xbf, 0x0e}), HasSubstr("a scale")) << "negative";
  EXPECT_THAT(decode({255, 255, 255, 255, 255, 255, 255, 255, 255, 1}),
              HasSubstr("in a tile of 4"));
}

TEST(Cast16, RoundsToTheFormatAndSaturates) {
  const std::vector<float> update{1.0009765f, -65504, 1e6, -1e38, 1e-8, 3.4e38};
  const auto fp16 = there_and_back(update, {{{"codec", "cast16"}, {"format", "fp16"}}});
  EXPECT_THAT(fp16, testing::ElementsAre(from_fp16(to_fp16(update[0])), -65504, kFp16Max, -kFp16Max,
                                         0, kFp16Max));
  const auto bf16 = there_and_back(update, {{{"codec", "cast16"}}});
  EXPECT_EQ(bf16[5], kBf16Max);
  EXPECT_EQ(bf16[3], from_bf16(to_bf16(-1e38f)));
}

/// A Gaussian's exponent byte has 2.5 bits of entropy and the rest none to spare: at best 26.5 of
/// 32 bits.
TEST(Zstd, TakesTheExponentsRedundancyOutOfFloats) {
  RandomStream random(1, "gaussian");
  std::vector<float> update(1 << 17);
  for (auto& x : update) x = float(random.normal());
  const auto bytes = make({{{"codec", "zstd"}}}).encode(update, 1);
  EXPECT_LT(double(bytes.size()) / double(update.size() * sizeof(float)), 0.86);
}

Bytes zstd_tile(std::span<const std::byte> content, std::uint64_t floats) {
  Bytes bytes;
  ByteWriter(bytes).varint(floats);
  const auto start = bytes.size();
  bytes.resize(start + ZSTD_compressBound(content.size()));
  bytes.resize(start + ZSTD_compress(bytes.data() + start, bytes.size() - start, content.data(),
                                     content.size(), 19));
  return bytes;
}

TEST(Zstd, ABombIsRefusedBeforeItIsUnpacked) {
  const auto bomb = zstd_tile(Bytes(std::size_t{64} << 20), 4);
  ASSERT_LT(bomb.size(), 10000u);
  Packet packet{{}, bomb};
  const auto decoded = codec("zstd")->decode(packet, 4);
  ASSERT_FALSE(decoded);
  EXPECT_THAT(decoded.error().message, HasSubstr("67108864 bytes"));
}

TEST(Zstd, AFrameThatHidesOrMisstatesItsSizeIsRefused) {
  const auto zstd = codec("zstd");
  const auto refusal = [&](const Bytes& bytes) {
    Packet packet{{}, bytes};
    const auto decoded = zstd->decode(packet, 100);
    return decoded ? std::string("ok") : decoded.error().message;
  };
  const Bytes content(300);
  const auto good = zstd_tile(content, 1);
  EXPECT_EQ(refusal(good), "ok");

  Bytes hidden{std::byte{1}};
  hidden.resize(1000);
  auto* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
  hidden.resize(1 +
                ZSTD_compress2(context, hidden.data() + 1, 999, content.data(), content.size()));
  ZSTD_freeCCtx(context);
  EXPECT_THAT(refusal(hidden), HasSubstr("states its size"));

  auto twice = good;
  twice.insert(twice.end(), good.begin() + 1, good.end());
  EXPECT_THAT(refusal(twice), HasSubstr("after the frame"));
  EXPECT_THAT(refusal(zstd_tile(content, 76)), HasSubstr("76 floats"))
      << "76 floats are more than 300 bytes";
  EXPECT_THAT(refusal({std::byte{1}}), HasSubstr("zstd"));
}

}  // namespace
}  // namespace preceptor::compression::test
