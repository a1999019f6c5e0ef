#include "node/held_model.h"

#include <gmock/gmock.h>

namespace preceptor::node {
namespace {

using testing::HasSubstr;

const Digest kPlan = sha256("the plan");

HeldModel made() {
  const auto blob = std::make_shared<const Bytes>(1000, std::byte{7});
  return {blob, sha256(*blob), 12, true};
}
std::string refusal(std::span<const std::byte> bytes, const Digest& plan = kPlan) {
  const auto model = restore_model(bytes, plan);
  return model ? "" : model.error().message;
}

TEST(HeldModel, ComesBackAsItWas) {
  const auto model = made();
  const auto back = restore_model(store(model, kPlan), kPlan);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back->blob, *model.blob);
  EXPECT_EQ(back->digest, model.digest);
  EXPECT_EQ(back->round, 12u);
  EXPECT_TRUE(back->recomputed);
}

TEST(HeldModel, OfAnotherPlanOrVersionOrThatTheDiskChangedIsNotUsed) {
  auto bytes = store(made(), kPlan);
  EXPECT_THAT(refusal(bytes, sha256("another plan")), HasSubstr("of another plan"));
  for (std::size_t size = 0; size < bytes.size(); size += 11) EXPECT_NE(refusal(std::span(bytes).first(size)), "") << size;
  bytes.back() ^= std::byte{1};
  EXPECT_THAT(refusal(bytes), HasSubstr("another hash"));
  bytes[0] = std::byte{9};
  EXPECT_THAT(refusal(bytes), HasSubstr("version 9"));
}

}  // namespace
}  // namespace preceptor::node
