#include "common/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "tests/support/temp_dir.h"

namespace preceptor {
namespace {

using testing::HasSubstr;

Bytes file_of(const std::string& header, std::size_t data_bytes, std::uint64_t claimed) {
  Bytes bytes;
  ByteWriter writer(bytes);
  writer.put(claimed);
  writer.put(bytes_of(header));
  bytes.resize(bytes.size() + data_bytes);
  return bytes;
}
Bytes file_of(const std::string& header, std::size_t data_bytes) {
  return file_of(header, data_bytes, header.size());
}

/// One tensor "t" with these fields.
std::string header(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return fmt::format(R"({{"t":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape,
                     offsets);
}

std::string refusal(const std::string& text, std::size_t data_bytes) {
  const auto file = SafetensorsFile::parse(file_of(text, data_bytes));
  if (file) return "accepted";
  EXPECT_EQ(file.error().code, Code::kCorrupt);
  return file.error().message;
}

TEST(Safetensors, WhatIsEncodedComesBack) {
  const float weights[] = {1, 2, 3, 4, 5, 6};
  const std::int64_t steps[] = {-7};
  const std::vector<StoredTensor> tensors{
      {"b.weight", "F32", {2, 3}, std::as_bytes(std::span(weights))},
      {"a.steps", "I64", {}, std::as_bytes(std::span(steps))},
      {"none", "F16", {0, 4}, {}},
  };
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"é", "\"\n"}};
  const auto bytes = encode_safetensors(tensors, metadata);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  EXPECT_EQ(length % 8, 0u) << "tensors are aligned";

  const test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "m.safetensors", bytes));
  const auto file = SafetensorsFile::load(dir / "m.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->metadata(), metadata);
  ASSERT_EQ(file->tensors().size(), 3u);
  for (const auto& tensor : tensors) {
    const auto* found = file->find(tensor.name);
    ASSERT_NE(found, nullptr) << tensor.name;
    EXPECT_EQ(found->dtype, tensor.dtype);
    EXPECT_EQ(found->shape, tensor.shape);
    EXPECT_TRUE(std::ranges::equal(found->data, tensor.data));
  }
  EXPECT_EQ(file->find("c"), nullptr);
}

TEST(Safetensors, AMovedFileKeepsItsTensors) {
  const float weight[] = {1.5f};
  auto file = SafetensorsFile::parse(
      encode_safetensors({{"w", "F32", {1}, std::as_bytes(std::span(weight))}}, {}));
  ASSERT_TRUE(file);
  const auto moved = std::move(*file);
  float value = 0;
  std::memcpy(&value, moved.find("w")->data.data(), sizeof value);
  EXPECT_EQ(value, 1.5f);
  static_assert(!std::is_copy_constructible_v<SafetensorsFile>);
}

TEST(Safetensors, AFileWithoutTensorsIsOne) {
  const auto file = SafetensorsFile::parse(encode_safetensors({}, {}));
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->tensors().empty());
  EXPECT_TRUE(SafetensorsFile::parse(file_of("{}", 0)));
}

TEST(Safetensors, ALyingHeaderLengthIsRefused) {
  const auto good = header(R"("F32")", "[1]", "[0,4]");
  EXPECT_TRUE(SafetensorsFile::parse(file_of(good, 4)));
  const std::uint64_t left = good.size() + 4;
  for (const std::uint64_t claimed : {std::uint64_t{0}, std::uint64_t{1}, left - 5, left - 3, left,
                                      left + 1, std::uint64_t{1} << 40, ~std::uint64_t{0}})
    EXPECT_FALSE(SafetensorsFile::parse(file_of(good, 4, claimed))) << claimed;
  for (std::size_t size = 0; size < 8; ++size)
    EXPECT_FALSE(SafetensorsFile::parse(Bytes(size))) << size;
  // Honest, but longer than any header is.
  EXPECT_THAT(refusal(good + std::string(16 << 20, ' '), 4), HasSubstr("header claims"));
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const auto whole = file_of(header(R"("F32")", "[2]", "[0,8]"), 8);
  ASSERT_TRUE(SafetensorsFile::parse(whole));
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(SafetensorsFile::parse(Bytes(whole.begin(), whole.begin() + std::ptrdiff_t(size))))
        << size;
}

TEST(Safetensors, AShapeThatDoesNotFitItsBytesIsRefused) {
  struct Case {
    const char *dtype, *shape, *offsets;
    std::size_t data;
    const char* message;
  };
  const Case cases[] = {
      {R"("F32")", "[3]", "[0,8]", 8, "do not fit"},
      {R"("F32")", "[2]", "[0,8]", 7, "do not fit"},
      {R"("F32")", "[2]", "[8,0]", 8, "do not fit"},
      {R"("F32")", "[2]", "[4,12]", 12, "gap"},
      {R"("F32")", "[1]", "[0,4]", 5, "after the last"},
      {R"("F32")", "[4294967296,4294967296]", "[0,0]", 0, "cannot hold"},
      {R"("F32")", "[16,16,16,16,16,16,16,16]", "[0,0]", 16, "do not fit"},
      {R"("F32")", "[-1]", "[0,4]", 4, "cannot hold"},
      {R"("F32")", "[1.0]", "[0,4]", 4, "cannot hold"},
      {R"("F32")", "[1]", "[0.0,4]", 4, "not a whole number"},
      {R"("F32")", "[1]", "[-4,0]", 4, "not a whole number"},
      {R"("F32")", "[1]", "[0,18446744073709551616]", 4, "not a whole number"},
      {R"("F32")", "[1]", "[0]", 4, "wants dtype, shape and two data_offsets"},
      {R"("F32")", "[1]", "[0,4,8]", 4, "wants dtype, shape and two data_offsets"},
      {R"("F32")", "4", "[0,4]", 4, "wants dtype, shape and two data_offsets"},
      {R"(32)", "[1]", "[0,4]", 4, "wants dtype, shape and two data_offsets"},
      {R"("F33")", "[1]", "[0,4]", 4, "unknown dtype 'F33'"},
      {R"("F32")", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4, "more than 8 dimensions"},
      {R"("F32")", "[[1]]", "[0,4]", 4, "too deep"},
  };
  for (const auto& c : cases)
    EXPECT_THAT(refusal(header(c.dtype, c.shape, c.offsets), c.data), HasSubstr(c.message))
        << c.shape << c.offsets;
}

TEST(Safetensors, AProductThatOverflowsIsRefused) {
  // 2^16 to the fourth is 2^64: were the overflow missed, the tensor would seem to have no bytes.
  const std::string shape = "[65536,65536,65536,65536]";
  EXPECT_THAT(refusal(header(R"("U8")", shape, "[0,0]"), 65536), HasSubstr("overflows"));
  // 2^64 - 2^32 bytes, as offsets from 2^32 back to 0 would hold if the difference might wrap.
  const std::string wraps = "[65537,257,17,15,65536,65536]";
  EXPECT_THAT(refusal(header(R"("U8")", wraps, "[4294967296,0]"), 65537), HasSubstr("do not fit"));
}

TEST(Safetensors, TensorsThatOverlapOrLeaveAGapAreRefused) {
  const auto two = [](const char* a, const char* b) {
    return fmt::format(
        R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},"b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
        a, b);
  };
  EXPECT_EQ(refusal(two("[0,4]", "[4,8]"), 8), "accepted");
  EXPECT_EQ(refusal(two("[4,8]", "[0,4]"), 8), "accepted") << "the header's order is free";
  EXPECT_THAT(refusal(two("[0,4]", "[0,4]"), 4), HasSubstr("overlaps"));
  EXPECT_THAT(refusal(two("[0,4]", "[2,6]"), 6), HasSubstr("overlaps"));
  EXPECT_THAT(refusal(two("[0,4]", "[5,9]"), 9), HasSubstr("gap"));
}

TEST(Safetensors, AHeaderThatIsNotAnObjectOfTensorsIsRefused) {
  for (const auto* text :
       {"", "[]", "3", "null", "{", "{}x", R"({"t":3})", R"({"t":{}})", R"({"t":[]})",
        R"({"__metadata__":3})", R"({"__metadata__":{"a":3}})", "{\"\xff\":1}"})
    EXPECT_NE(refusal(text, 0), "accepted") << text;
}

TEST(Safetensors, DeepNestingIsRefusedWithoutBeingBuilt) {
  const auto nested = [](std::size_t depth) {
    return R"({"__metadata__":)" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_THAT(refusal(nested(2), 0), HasSubstr("__metadata__ is not an object"));
  EXPECT_THAT(refusal(nested(3), 0), HasSubstr("too deep"));
  EXPECT_THAT(refusal(nested(2 << 20), 0), HasSubstr("too deep"));
  EXPECT_THAT(refusal(std::string(8 << 20, '['), 0), HasSubstr("too deep"));
}

TEST(Safetensors, ALoadErrorNamesTheFile) {
  const test::TempDir dir;
  EXPECT_EQ(SafetensorsFile::load(dir / "none").error().code, Code::kNotFound);
  ASSERT_TRUE(write_file(dir / "bad", "short"));
  EXPECT_THAT(SafetensorsFile::load(dir / "bad").error().message,
              HasSubstr((dir / "bad").string()));
  EXPECT_EQ(SafetensorsFile::load(dir / "bad", 4).error().code, Code::kRefused);
}

}  // namespace
}  // namespace preceptor
