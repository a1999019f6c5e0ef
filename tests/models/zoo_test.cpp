#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/model.h"

namespace preceptor::models {
namespace {

/// Every count that an architecture gives with its registration.
class Counts : public testing::TestWithParam<std::string> {};

TEST_P(Counts, AreThePublishedOnes) {
  const auto* architecture = *zoo().find(GetParam());
  EXPECT_FALSE(architecture->sizes.empty());
  EXPECT_FALSE(architecture->published.empty());
  for (auto published : architecture->published) {
    SCOPED_TRACE(write_options(published.spec));
    auto network = build(published.spec);
    ASSERT_TRUE(network) << network.error().message;
    if (published.fused) (*network)->fuse();
    std::int64_t parameters = 0;
    for (const auto& tensor : (*network)->parameters()) parameters += tensor.numel();
    EXPECT_EQ(parameters, published.parameters);
    if (published.macs) {
      EXPECT_EQ(count_macs(**network, published.spec.task), published.macs);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Zoo, Counts, testing::ValuesIn(zoo().names()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace preceptor::models
