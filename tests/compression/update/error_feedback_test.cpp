#include "compression/update/error_feedback.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

TEST(ErrorFeedback, MemoryAndWhatWasSentMakeUpTheInput) {
  constexpr std::size_t kFloats = Pipeline::kTile + 1000;
  for (const auto& stages : pipelines()) {
    const auto pipeline = make(stages);
    ErrorFeedback feedback;
    std::vector<double> owed(kFloats);
    for (std::uint64_t round = 0; round < 3; ++round) {
      const auto update = layered_update(kFloats, round);
      const auto bytes = feedback.encode(pipeline, update, round);
      ASSERT_TRUE(bytes) << bytes.error().message;
      const auto sent = *pipeline.decode(*bytes, kFloats);
      for (std::size_t i = 0; i < kFloats; ++i) {
        owed[i] += double(update[i]) - sent[i];
        ASSERT_NEAR(feedback.memory()[i], owed[i], 1e-6) << describe(stages);
      }
    }
  }
}

/// The mean of what arrived over T rounds misses the constant update by memory / T: with feedback
/// the error falls as 1 / T; without it top-k never sends the small values.
TEST(ErrorFeedback, WhatArrivesConvergesToWhatWasMeant) {
  const auto update = layered_update(2000);
  const auto pipeline =
      make({{{"codec", "topk"}, {"fraction", "0.05"}}, {{"codec", "quantize"}, {"bits", "8"}}});
  const auto error_after = [&](int rounds, bool with_memory) {
    ErrorFeedback feedback;
    std::vector<float> mean(update.size());
    for (int round = 0; round < rounds; ++round) {
      if (!with_memory) feedback.restore({});
      const auto sent =
          *pipeline.decode(*feedback.encode(pipeline, update, std::uint64_t(round)), update.size());
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += sent[i] / float(rounds);
    }
    return relative_error(update, mean);
  };
  const auto early = error_after(20, true), late = error_after(200, true);
  EXPECT_LT(late, early / 50) << "squared error falls as 1 / T^2";
  EXPECT_GT(error_after(200, false), 20 * late);
}

TEST(ErrorFeedback, ALosslessPipelineOwesNothing) {
  ErrorFeedback feedback;
  const auto update = layered_update(100);
  ASSERT_TRUE(feedback.encode(make({{{"codec", "zstd"}}}), update, 1));
  EXPECT_THAT(feedback.memory(), testing::Each(0.0f));
}

TEST(ErrorFeedback, ARestoredMemoryIsSentNext) {
  ErrorFeedback feedback;
  feedback.restore({1, 2, 3});
  const float update[] = {10, 20, 30};
  const auto pipeline = make({});
  EXPECT_THAT(*pipeline.decode(*feedback.encode(pipeline, update, 1), 3),
              testing::ElementsAre(11, 22, 33));
}

TEST(ErrorFeedback, AnUpdateItCannotTakeIsAnErrorAndTheMemoryStays) {
  ErrorFeedback feedback;
  feedback.restore({std::numeric_limits<float>::max(), 2});
  const auto pipeline = make({});
  const auto refuse = [&](std::vector<float> update) {
    const auto bytes = feedback.encode(pipeline, update, 1);
    EXPECT_FALSE(bytes);
    EXPECT_THAT(feedback.memory(), testing::ElementsAre(std::numeric_limits<float>::max(), 2));
  };
  refuse({1, 2, 3});
  refuse({});
  refuse({0, std::numeric_limits<float>::quiet_NaN()});
  refuse({std::numeric_limits<float>::max(), 0});  // the sum overflows
}

}  // namespace
}  // namespace preceptor::compression::test
