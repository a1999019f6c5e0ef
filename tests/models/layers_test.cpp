#include "models/layers.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace preceptor::models {
namespace {

TEST(Layers, EveryTakesPixelsAndKeepsTheMemoryFormat) {
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const auto x = torch::randn({2, 3, 7, 5}).contiguous(format).requires_grad_();
    const auto y = every(2, x);
    EXPECT_TRUE(y.equal(x.slice(2, 0, c10::nullopt, 2).slice(3, 0, c10::nullopt, 2)));
    EXPECT_TRUE(y.is_contiguous(format));
    const auto gradient = torch::autograd::grad({y.sum()}, {x})[0];
    EXPECT_EQ(gradient.sum().item<float>(), float(y.numel()));
    EXPECT_TRUE(gradient.is_contiguous(format));
    EXPECT_TRUE(every(1, x).is_same(x));
  }
}

}  // namespace
}  // namespace preceptor::models
