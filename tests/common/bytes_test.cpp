#include "common/bytes.h"

#include <gtest/gtest.h>

#include "common/hash.h"

namespace preceptor {
namespace {

Bytes from(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(std::byte(value));
  return bytes;
}

TEST(Bytes, FixedWidthValuesAreLittleEndianAndComeBack) {
  Bytes bytes;
  ByteWriter writer(bytes);
  writer.put(std::uint32_t{0x01020304});
  writer.put(-2.5f);
  writer.put(bytes_of("xy"));
  EXPECT_EQ(hex(bytes), "04030201000020c07879");
  ByteReader reader(bytes);
  EXPECT_EQ(*reader.get<std::uint32_t>(), 0x01020304u);
  EXPECT_EQ(*reader.get<float>(), -2.5f);
  EXPECT_EQ(reader.take(2)->size(), 2u);
  EXPECT_EQ(reader.left(), 0u);
  EXPECT_EQ(reader.get<std::uint8_t>().error().code, Code::kCorrupt);
}

TEST(Bytes, AReadPastTheEndFailsAndTakesNothing) {
  const auto bytes = from({1, 2, 3});
  ByteReader reader(bytes);
  EXPECT_EQ(reader.get<std::uint32_t>().error().message, "truncated: 4 bytes wanted, 3 left");
  EXPECT_FALSE(reader.take(4));
  EXPECT_FALSE(reader.take(std::size_t(-1)));
  EXPECT_EQ(reader.left(), 3u);
}

// DWARF 5, section 7.6, figure 22.
TEST(Bytes, VarintIsLeb128) {
  const std::pair<std::uint64_t, const char*> cases[] = {
      {2, "02"}, {127, "7f"}, {128, "8001"}, {129, "8101"}, {12857, "b964"}, {0, "00"}};
  for (const auto& [value, text] : cases) {
    Bytes bytes;
    ByteWriter(bytes).varint(value);
    EXPECT_EQ(hex(bytes), text);
  }
}

TEST(Bytes, EveryVarintComesBack) {
  for (int shift = 0; shift < 64; ++shift) {
    for (const auto value :
         {std::uint64_t{1} << shift, (std::uint64_t{1} << shift) - 1, ~std::uint64_t{0} >> shift}) {
      Bytes bytes;
      ByteWriter(bytes).varint(value);
      ByteReader reader(bytes);
      EXPECT_EQ(*reader.varint(), value);
      EXPECT_EQ(reader.left(), 0u);
      bytes.pop_back();
      EXPECT_FALSE(ByteReader(bytes).varint());
    }
  }
}

TEST(Bytes, AVarintOfMoreThan64BitsIsRefused) {
  const auto largest = from({255, 255, 255, 255, 255, 255, 255, 255, 255, 1});
  EXPECT_EQ(*ByteReader(largest).varint(), ~std::uint64_t{0});
  EXPECT_FALSE(ByteReader(from({255, 255, 255, 255, 255, 255, 255, 255, 255, 2})).varint());
  EXPECT_FALSE(ByteReader(from({128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 0})).varint());
}

}  // namespace
}  // namespace preceptor
