#include "compression/update/fidelity.h"

#include <gmock/gmock.h>

#include "compression/update/update.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression {
namespace {

using test::layered_update;
using test::make;

TEST(Fidelity, IsCosineAndNormRatio) {
  const std::vector<float> truth{3, 4}, turned{-8, 6}, doubled{6, 8}, none{0, 0};
  EXPECT_NEAR(measure_fidelity("x", truth, turned).cosine, 0, 1e-12);
  EXPECT_DOUBLE_EQ(measure_fidelity("x", truth, turned).norm_ratio, 2);
  EXPECT_DOUBLE_EQ(measure_fidelity("x", truth, doubled).cosine, 1);
  EXPECT_DOUBLE_EQ(measure_fidelity("x", truth, doubled).norm_ratio, 2);
  EXPECT_DOUBLE_EQ(measure_fidelity("x", truth, none).cosine, 0);
  EXPECT_DOUBLE_EQ(measure_fidelity("x", none, none).cosine, 1);
  EXPECT_EQ(measure_fidelity("topk", none, none).stage, "topk");
}

TEST(Fidelity, OfEachStageIsThatOfAPipelineThatEndsThere) {
  const auto update = layered_update(Pipeline::kTile + 777);
  const std::vector<CodecSettings> stages{{{"codec", "topk"}, {"fraction", "0.05"}},
                                          {{"codec", "quantize"}, {"bits", "2"}},
                                          {{"codec", "zstd"}}};
  const auto measured = make(stages).fidelity(update, 7);
  ASSERT_EQ(measured.size(), 3u);
  for (std::size_t s = 0; s < 3; ++s) {
    const auto prefix = make({stages.begin(), stages.begin() + std::ptrdiff_t(s) + 1});
    const auto decoded = prefix.decode(prefix.encode(update, 7), update.size()).value();
    const auto expected = measure_fidelity("", update, decoded);
    EXPECT_EQ(measured[s].stage, stages[s].at("codec"));
    EXPECT_DOUBLE_EQ(measured[s].cosine, expected.cosine);
    EXPECT_DOUBLE_EQ(measured[s].norm_ratio, expected.norm_ratio);
  }
  EXPECT_LT(measured[1].cosine, measured[0].cosine);
  EXPECT_DOUBLE_EQ(measured[2].cosine, measured[1].cosine) << "zstd loses nothing";
}

TEST(Fidelity, OfAnUpdateCountsWhatErrorFeedbackAdds) {
  ParameterSpace space;
  space.add("w", {1000}, Role::kWeight);
  space.add("m", {10}, Role::kNormMean);
  const auto codec = UpdateCodec::create({.weights = {{{"codec", "topk"}, {"fraction", "0.1"}}}}, space).value();
  const auto delta = layered_update(space.size());
  ErrorFeedback memory;
  const auto fresh = codec.fidelity(delta, 1, memory);
  ASSERT_TRUE(codec.encode(delta, 1, memory));
  const auto later = codec.fidelity(delta, 1, memory);
  ASSERT_EQ(fresh.size(), 1u);
  EXPECT_NE(fresh[0].cosine, later[0].cosine);
}

}  // namespace
}  // namespace preceptor::compression
