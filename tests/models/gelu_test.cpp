#include "models/gelu.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace preceptor::models {
namespace {

TEST(ImageGelu, SameInEitherMemoryFormatWhichItKeeps) {
  const auto planes = torch::randn({2, 5, 7, 6});
  const auto expected = torch::gelu(planes.to(torch::kFloat64)).to(torch::kFloat32);
  for (const auto format : {at::MemoryFormat::Contiguous, at::MemoryFormat::ChannelsLast}) {
    const auto x = planes.contiguous(format).requires_grad_();
    const auto y = ImageGelu()(x);
    EXPECT_TRUE(y.is_contiguous(format));
    EXPECT_TRUE(torch::allclose(y, expected, 1e-5, 1e-6));
    EXPECT_TRUE(torch::autograd::grad({y.sum()}, {x})[0].is_contiguous(format));
  }
}

}  // namespace
}  // namespace preceptor::models
