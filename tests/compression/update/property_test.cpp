// Properties of every registered codec over any finite floats, subnormal and enormous ones mixed.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <bit>

#include "compression/update/selection.h"
#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

/// Any bit pattern that is a finite number, or one near a few magnitudes, as updates have them.
std::vector<float> any_update() {
  const auto words = *rc::gen::container<std::vector<std::uint32_t>>(rc::gen::arbitrary<std::uint32_t>());
  const auto wild = *rc::gen::arbitrary<bool>();
  std::vector<float> update;
  for (auto word : words) {
    word *= 2654435761u;  // RapidCheck's integers are small at first
    if (!wild) word = (word & 0x87ffffff) | 0x38000000;
    if ((word & 0x7f800000) == 0x7f800000) word &= ~0x40000000u;
    update.push_back(std::bit_cast<float>(word));
  }
  return update;
}

TEST(Property, EveryCodecGivesFiniteFloatsBackWithinItsBoundAndTheSameBytesAgain) {
  for (const auto& stages : pipelines()) {
    const auto pipeline = make(stages);
    EXPECT_TRUE(rc::check(describe(stages), [&] {
      const auto update = any_update();
      const auto seed = *rc::gen::arbitrary<std::uint64_t>();
      const auto bytes = pipeline.encode(update, seed);
      RC_ASSERT(bytes == pipeline.encode(update, seed));
      RC_ASSERT(bytes.size() <= pipeline.size_bound(update.size()));
      const auto decoded = pipeline.decode(bytes, update.size());
      RC_ASSERT(decoded.has_value());
      RC_ASSERT(decoded->size() == update.size());
      for (const auto value : *decoded) RC_ASSERT(std::isfinite(value));
    }));
  }
}

TEST(Property, SelectionAgreesWithASort) {
  EXPECT_TRUE(rc::check("largest_places", [] {
    auto values = any_update();
    const auto equals = *rc::gen::inRange<std::size_t>(1, 5);
    for (std::size_t i = equals; i < values.size(); i += equals) values[i] = values[i - equals];
    const auto k = *rc::gen::inRange<std::size_t>(0, values.size() + 1);
    std::vector<std::uint32_t> order(values.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = std::uint32_t(i);
    std::ranges::stable_sort(
        order, [&](auto a, auto b) { return std::abs(values[a]) > std::abs(values[b]); });
    order.resize(k);
    std::ranges::sort(order);
    RC_ASSERT(largest_places(values, k) == order);
  }));
}

}  // namespace
}  // namespace preceptor::compression::test
