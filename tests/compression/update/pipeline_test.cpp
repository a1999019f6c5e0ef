#include "compression/update/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::size_t kTile = Pipeline::kTile;

class AnyPipeline : public testing::TestWithParam<std::size_t> {
 protected:
  Pipeline pipeline = make(pipelines()[GetParam()]);
};

TEST_P(AnyPipeline, KeepsTheShapeWithinItsBoundAtEveryTileEdge) {
  for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{2}, kTile - 1, kTile,
                              kTile + 1, 2 * kTile + 17}) {
    const auto update = layered_update(n);
    const auto bytes = pipeline.encode(update, 1);
    EXPECT_LE(bytes.size(), pipeline.size_bound(n)) << n;
    const auto decoded = pipeline.decode(bytes, n);
    ASSERT_TRUE(decoded) << n << ": " << decoded.error().message;
    EXPECT_EQ(decoded->size(), n);
    EXPECT_TRUE(pipeline.check(bytes, n));
    for (const auto wrong : {n + 1, n - 1, n + kTile})
      EXPECT_FALSE(pipeline.decode(bytes, wrong)) << n;
  }
}

TEST_P(AnyPipeline, TheSameSeedGivesTheSameBytes) {
  const auto update = layered_update(kTile + 100);
  EXPECT_EQ(pipeline.encode(update, 5), pipeline.encode(update, 5));
}

TEST_P(AnyPipeline, ZerosStayZeros) {
  const std::vector<float> zeros(kTile + 3);
  EXPECT_EQ(*pipeline.decode(pipeline.encode(zeros, 1), zeros.size()), zeros);
}

TEST_P(AnyPipeline, EveryTruncationIsRefusedAndSoIsAByteMore) {
  for (const std::size_t n : {0, 1, 100}) {
    auto bytes = pipeline.encode(layered_update(n), 1);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      const auto cut = pipeline.decode(std::span(bytes).first(size), n);
      ASSERT_FALSE(cut) << size << " of " << bytes.size();
      ASSERT_EQ(cut.error().code, Code::kCorrupt);
    }
    bytes.push_back({});
    EXPECT_FALSE(pipeline.decode(bytes, n));
  }
}

/// A tile cut short inside a frame that says so: the frame is whole, so the codecs must find it.
TEST_P(AnyPipeline, EveryTruncationOfATileIsRefused) {
  constexpr std::size_t kFloats = 100, kTileAt = 20;
  const auto bytes = pipeline.encode(layered_update(kFloats), 1);
  for (std::size_t size = 0; size < bytes.size() - kTileAt; ++size) {
    Bytes cut(bytes.begin(), bytes.begin() + std::ptrdiff_t(kTileAt + size));
    const auto length = std::uint32_t(size);
    std::memcpy(cut.data() + kTileAt - sizeof length, &length, sizeof length);
    const auto decoded = pipeline.decode(cut, kFloats);
    ASSERT_FALSE(decoded) << size;
    ASSERT_THAT(decoded.error().message, HasSubstr("tile 0: "));
  }
}

TEST_P(AnyPipeline, AByteMoreInATileIsRefused) {
  auto bytes = pipeline.encode(layered_update(100), 1);
  std::uint32_t length = 0;
  std::memcpy(&length, bytes.data() + 16, sizeof length);
  ++length;
  std::memcpy(bytes.data() + 16, &length, sizeof length);
  bytes.push_back({});
  EXPECT_FALSE(pipeline.decode(bytes, 100));
}

TEST_P(AnyPipeline, FlippedBitsNeverCrashItOrChangeTheShape) {
  constexpr std::size_t kFloats = 400;
  const auto whole = pipeline.encode(layered_update(kFloats), 1);
  RandomStream random(2, "flips");
  int refused = 0;
  for (int run = 0; run < 2000; ++run) {
    auto bytes = whole;
    for (auto flips = 1 + random.below(3); flips > 0; --flips)
      bytes[random.below(bytes.size())] ^= std::byte(1 << random.below(8));
    const auto decoded = pipeline.decode(bytes, kFloats);
    refused += !decoded;
    if (decoded) {
      ASSERT_EQ(decoded->size(), kFloats);
    }
  }
  EXPECT_GT(refused, 0);
}

INSTANTIATE_TEST_SUITE_P(Table, AnyPipeline, testing::Range(std::size_t{0}, pipelines().size()),
                         [](const auto& made) {
                           auto name = describe(pipelines()[made.param]);
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(Pipeline, TheFrameIsAsTheHeaderSays) {
  const float update[] = {1.0f, -2.0f};
  const auto bytes = make({}).encode(update, 1);
  // magic, u64 floats, u32 tiles, u32 length, varint count, two fp32
  EXPECT_EQ(hex(bytes),
            "50435531"
            "0200000000000000"
            "01000000"
            "09000000"
            "02"
            "0000803f"
            "000000c0");
}

TEST(Pipeline, ALosslessOneGivesTheSameFloats) {
  auto update = layered_update(kTile + 1);
  update[0] = -0.0f, update[1] = std::numeric_limits<float>::denorm_min(),
  update[2] = -std::numeric_limits<float>::max();
  for (const auto& stages : std::vector<std::vector<CodecSettings>>{
           {},
           {{{"codec", "zstd"}}},
           {{{"codec", "zstd"}, {"level", "19"}}, {{"codec", "zstd"}}},
           {{{"codec", "topk"}, {"fraction", "1"}}},
           {{{"codec", "topk"}, {"fraction", "1"}}, {{"codec", "zstd"}}}}) {
    const auto pipeline = make(stages);
    EXPECT_TRUE(pipeline.unbiased());
    const auto decoded = *pipeline.decode(pipeline.encode(update, 1), update.size());
    EXPECT_EQ(std::memcmp(decoded.data(), update.data(), update.size() * sizeof(float)), 0)
        << describe(stages);
  }
}

TEST(Pipeline, FoldsTilesInOrderAndStopsAtTheFoldsError) {
  const auto update = layered_update(2 * kTile + 5);
  const auto pipeline = make({});
  const auto bytes = pipeline.encode(update, 1);
  std::vector<std::pair<std::size_t, std::size_t>> seen;
  ASSERT_TRUE(pipeline.decode(
      bytes, update.size(), [&](std::size_t offset, std::span<const float> tile) -> Result<void> {
        seen.emplace_back(offset, tile.size());
        EXPECT_TRUE(std::ranges::equal(tile, std::span(update).subspan(offset, tile.size())));
        return {};
      }));
  EXPECT_THAT(seen, testing::ElementsAre(std::pair(0u, kTile), std::pair(kTile, kTile),
                                         std::pair(2 * kTile, 5u)));
  int folds = 0;
  const auto stopped = pipeline.decode(bytes, update.size(),
                                       [&](std::size_t, std::span<const float>) -> Result<void> {
                                         ++folds;
                                         return fail(Code::kRefused, "enough");
                                       });
  EXPECT_EQ(stopped.error().message, "enough");
  EXPECT_EQ(folds, 1);
}

TEST(Pipeline, NothingIsFoldedFromABrokenFrame) {
  const auto pipeline = make({{{"codec", "quantize"}}});
  auto bytes = pipeline.encode(layered_update(3 * kTile), 1);
  bytes.pop_back();
  int folds = 0;
  const auto fold = [&](std::size_t, std::span<const float>) -> Result<void> {
    return ++folds, Result<void>();
  };
  EXPECT_FALSE(pipeline.decode(bytes, 3 * kTile, fold));
  EXPECT_EQ(folds, 0);
}

TEST(Pipeline, ATileLongerThanItsCodecsEverNeedIsRefusedUnread) {
  const auto pipeline = make({{{"codec", "cast16"}}});
  auto bytes = pipeline.encode(std::vector<float>(10), 1);
  const auto more = std::uint32_t(1000);
  std::memcpy(bytes.data() + 16, &more, sizeof more);
  bytes.resize(20 + more);
  EXPECT_THAT(pipeline.decode(bytes, 10).error().message,
              HasSubstr("more than its codecs ever need"));
}

/// zstd could bring floats of its own, which quantize would overwrite.
TEST(Pipeline, FloatsThatAnEarlierStageWouldDropAreRefused) {
  const auto quantize = (**codecs().find("quantize"))({}).value(),
             zstd = (**codecs().find("zstd"))({}).value();
  RandomStream random(1, "hidden");
  for (const bool hidden : {false, true}) {
    Packet packet{layered_update(10), {}};
    quantize->encode(packet, random);
    if (hidden) packet.values = {1, 2, 3};
    zstd->encode(packet, random);
    Bytes bytes;
    ByteWriter writer(bytes);
    writer.put(bytes_of("PCU1"));
    writer.put(std::uint64_t{10});
    writer.put(std::uint32_t{1});
    writer.put(std::uint32_t(packet.bytes.size()));
    writer.put(packet.bytes);
    const auto decoded = make({{{"codec", "quantize"}}, {{"codec", "zstd"}}}).decode(bytes, 10);
    EXPECT_EQ(decoded.has_value(), !hidden);
    if (hidden) {
      EXPECT_EQ(decoded.error().message, "tile 0: 3 floats after stage 1, 0 expected");
    }
  }
}

TEST(Pipeline, AValueThatIsNotFiniteIsABug) {
  const float update[] = {1, std::numeric_limits<float>::quiet_NaN()};
  EXPECT_THROW(make({}).encode(update, 1), std::logic_error);
}

TEST(Pipeline, OtherSeedsRoundOtherwiseAndTilesDrawOfTheirOwn) {
  const auto pipeline = make({{{"codec", "quantize"}, {"bits", "2"}}});
  auto update = layered_update(kTile);
  EXPECT_NE(pipeline.encode(update, 1), pipeline.encode(update, 2));
  update.insert(update.end(), update.begin(), update.end());
  const auto decoded = *pipeline.decode(pipeline.encode(update, 1), update.size());
  EXPECT_FALSE(std::equal(decoded.begin(), decoded.begin() + kTile, decoded.begin() + kTile));
}

TEST(Pipeline, IsUnbiasedOnlyWhenEachStageIs) {
  EXPECT_TRUE(make({}).unbiased());
  EXPECT_TRUE(make({{{"codec", "quantize"}}, {{"codec", "zstd"}}}).unbiased());
  EXPECT_FALSE(make({{{"codec", "topk"}}, {{"codec", "quantize"}}}).unbiased());
  EXPECT_FALSE(make({{{"codec", "cast16"}}}).unbiased());
}

std::string refusal(const std::vector<CodecSettings>& stages) {
  const auto pipeline = Pipeline::create(stages);
  if (pipeline) return "created";
  EXPECT_EQ(pipeline.error().code, Code::kInvalid);
  return pipeline.error().message;
}

TEST(Pipeline, ABadStageIsRefusedByNumberAndName) {
  EXPECT_THAT(refusal({{{"codec", "topk"}}, {{"codec", "gzip"}}}),
              AllOf(HasSubstr("stage 2 (gzip): "), HasSubstr("cast16, eden, qsgd, quantize, sign, topk, zstd")));
  EXPECT_THAT(refusal({{{"bits", "4"}}}),
              AllOf(HasSubstr("stage 1 (?)"), HasSubstr("'codec'"), HasSubstr("zstd")));
  EXPECT_THAT(refusal({{{"codec", "quantize"}}, {{"codec", "topk"}}}),
              AllOf(HasSubstr("stage 2 (topk)"), HasSubstr("before")));
  EXPECT_THAT(refusal({{{"codec", "zstd"}}, {{"codec", "cast16"}}}), HasSubstr("stage 2 (cast16)"));
  EXPECT_THAT(refusal({{{"codec", "quantize"}, {"bit", "4"}}}),
              AllOf(HasSubstr("bit: unknown key"), HasSubstr("'bits'")));
  EXPECT_THAT(refusal(std::vector<CodecSettings>(9, {{"codec", "zstd"}})), HasSubstr("9 stages"));
  for (const auto* bits : {"1", "3", "5", "6", "7", "16", "x"})
    EXPECT_THAT(refusal({{{"codec", "quantize"}, {"bits", bits}}}), HasSubstr("bits")) << bits;
  for (const auto* fraction : {"0", "-0.1", "1.01", "nan"})
    EXPECT_THAT(refusal({{{"codec", "topk"}, {"fraction", fraction}}}), HasSubstr("fraction"))
        << fraction;
  for (const auto* level : {"0", "20"})
    EXPECT_THAT(refusal({{{"codec", "zstd"}, {"level", level}}}), HasSubstr("level"));
  EXPECT_THAT(refusal({{{"codec", "cast16"}, {"format", "fp8"}}}), HasSubstr("bf16, fp16"));
  EXPECT_THAT(refusal({{{"codec", "quantize"}, {"block", "0"}}}), HasSubstr("block"));
}

/// The raw bytes of a pipeline with this many stages still fit what zstd's decoder accepts.
TEST(Pipeline, TheLongestPipelineDecodes) {
  std::vector<CodecSettings> stages(Pipeline::kMaxStages - 1,
                                    {{"codec", "topk"}, {"fraction", "1"}});
  stages.push_back({{"codec", "zstd"}});
  const auto zstds = std::vector<CodecSettings>(Pipeline::kMaxStages, {{"codec", "zstd"}});
  for (const auto& pipeline : {make(stages), make(zstds)})
    for (const std::size_t n : {std::size_t{1}, std::size_t{100}, kTile}) {
      const auto update = layered_update(n);
      const auto decoded = pipeline.decode(pipeline.encode(update, 1), n);
      ASSERT_TRUE(decoded) << decoded.error().message;
      EXPECT_EQ(*decoded, update);
    }
}

}  // namespace
}  // namespace preceptor::compression::test
