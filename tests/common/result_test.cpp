#include "common/result.h"

#include <gtest/gtest.h>

#include <memory>

#include "common/registry.h"

namespace preceptor {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return fail(Code::kInvalid, "{} is odd", value);
  return value / 2;
}

Result<std::string> quarter(int value, int& reached) {
  const auto once = TRY(half(value));
  ++reached;
  return std::to_string(TRY(half(once)));
}

TEST(Result, TryPassesTheValueOnOrReturnsTheError) {
  int reached = 0;
  EXPECT_EQ(*quarter(12, reached), "3");
  EXPECT_EQ(reached, 1);
  const auto second = quarter(6, reached);
  EXPECT_EQ(reached, 2);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message, "3 is odd");
  const auto first = quarter(5, reached);
  EXPECT_EQ(reached, 2) << "what follows an error does not run";
  EXPECT_EQ(first.error().code, Code::kInvalid);
}

TEST(Result, TryMovesAndTakesVoid) {
  const auto make = [](bool good) -> Result<std::unique_ptr<int>> {
    if (!good) return fail(Code::kIo, "no");
    return std::make_unique<int>(5);
  };
  const auto check = [](bool good) -> Result<void> {
    if (!good) return fail(Code::kRefused, "refused");
    return {};
  };
  const auto both = [&](bool a, bool b) -> Result<int> {
    const auto owned = TRY(make(a));
    TRY(check(b));
    return *owned;
  };
  EXPECT_EQ(*both(true, true), 5);
  EXPECT_EQ(both(false, true).error().code, Code::kIo);
  EXPECT_EQ(both(true, false).error().code, Code::kRefused);
}

TEST(Result, InPutsThePlaceInFrontAndKeepsTheCode) {
  const Result<int> outer = in("file.bin", Error{Code::kCorrupt, "short"});
  EXPECT_EQ(outer.error().message, "file.bin: short");
  EXPECT_EQ(outer.error().code, Code::kCorrupt);
}

TEST(Registry, FindsByNameAndListsTheKnownForAnUnknownOne) {
  Registry<int> registry("codec");
  registry.add("zstd", 2);
  registry.add("topk", 1);
  EXPECT_EQ(**registry.find("topk"), 1);
  const auto unknown = registry.find("gzip");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::kInvalid);
  EXPECT_EQ(unknown.error().message, "unknown codec 'gzip'; known: topk, zstd");
  EXPECT_EQ(registry.names(), (std::vector<std::string>{"topk", "zstd"}));
  EXPECT_THROW(registry.add("topk", 3), std::logic_error);
}

}  // namespace
}  // namespace preceptor
