#include "common/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace preceptor {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Value of a 16-bit pattern from its fields, as IEEE 754-2008 section 3.4 defines it.
double by_definition(unsigned bits, int fraction_bits, int bias) {
  const int exponent = int(bits >> fraction_bits & ((1u << (15 - fraction_bits)) - 1));
  const double fraction = std::ldexp(double(bits & ((1u << fraction_bits) - 1)), -fraction_bits);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return bits >> 15 ? -magnitude : magnitude;
}

TEST(Half, EveryFp16PatternHasTheValueOfItsDefinitionAndComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto value = from_fp16(std::uint16_t(bits));
    if ((bits & 0x7fff) > 0x7c00) {
      ASSERT_TRUE(std::isnan(value)) << bits;
      ASSERT_TRUE(std::isnan(from_fp16(to_fp16(value)))) << bits;
      continue;
    }
    if ((bits & 0x7fff) == 0x7c00) {
      ASSERT_EQ(value, bits >> 15 ? -kInfinity : kInfinity);
    } else {
      ASSERT_EQ(value, by_definition(bits, 10, 15)) << bits;
    }
    ASSERT_EQ(to_fp16(value), bits);
  }
}

TEST(Half, EveryBf16PatternComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const auto value = from_bf16(std::uint16_t(bits));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(from_bf16(to_bf16(value)))) << bits;
      continue;
    }
    if (std::isfinite(value)) {
      ASSERT_EQ(value, by_definition(bits, 7, 127)) << bits;
    }
    ASSERT_EQ(to_bf16(value), bits);
  }
}

/// Around every midpoint of neighbours: below it rounds down, above it up, on it to the even one.
template <class To>
void check_midpoints(unsigned last, int fraction_bits, int bias, To to) {
  for (unsigned bits = 0; bits <= last; ++bits) {
    // Past the largest finite pattern the definition gives the value that infinity stands in for.
    const auto middle = float(
        (by_definition(bits, fraction_bits, bias) + by_definition(bits + 1, fraction_bits, bias)) /
        2);
    const auto even = bits + (bits & 1);
    for (const unsigned sign : {0u, 0x8000u}) {
      const auto signed_ = [&](float x) { return sign ? -x : x; };
      ASSERT_EQ(to(signed_(middle)), even | sign) << bits;
      ASSERT_EQ(to(signed_(std::nextafter(middle, 0.0f))), bits | sign) << bits;
      ASSERT_EQ(to(signed_(std::nextafter(middle, kInfinity))), (bits + 1) | sign) << bits;
    }
  }
}

TEST(Half, Fp16RoundsToNearestTiesToEven) {
  EXPECT_EQ(to_fp16(65519.996f), 0x7bff);
  EXPECT_EQ(to_fp16(65520.0f), 0x7c00) << "the midpoint of the largest and 2^16 is infinity";
  check_midpoints(0x7bfe, 10, 15, to_fp16);
  EXPECT_EQ(to_fp16(1e30f), 0x7c00);
  EXPECT_EQ(to_fp16(-kInfinity), 0xfc00);
  EXPECT_EQ(to_fp16(-0.0f), 0x8000);
  EXPECT_EQ(to_fp16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(from_fp16(0x7bff), kFp16Max);
}

TEST(Half, Bf16RoundsToNearestTiesToEven) {
  check_midpoints(0x7f7e, 7, 127, to_bf16);
  EXPECT_EQ(to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(from_bf16(0x7f7f), kBf16Max);
}

TEST(Half, Bf16UpIsTheSmallestThatIsNotBelow) {
  for (unsigned bits = 0; bits < 0x7f7f; ++bits) {
    const auto value = from_bf16(std::uint16_t(bits));
    ASSERT_EQ(to_bf16_up(value), bits);
    ASSERT_EQ(to_bf16_up(std::nextafter(value, kInfinity)), bits + 1);
  }
  EXPECT_EQ(to_bf16_up(std::numeric_limits<float>::max()), 0x7f7f) << "never infinity";
}

}  // namespace
}  // namespace preceptor
