#include "common/philox.h"

#include "common/random.h"
#include "common/simd_targets.h"

#include <algorithm>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/philox.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace preceptor::HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR
constexpr std::size_t kBlocks = 1;
void blocks(std::array<std::uint32_t, 2> key, std::uint64_t first, std::uint32_t* out) {
  std::ranges::copy(
      RandomStream::philox({std::uint32_t(first), std::uint32_t(first >> 32), 0, 0}, key), out);
}
#else
namespace hn = hwy::HWY_NAMESPACE;
using W = hn::CappedTag<std::uint64_t, 8>;
constexpr std::size_t kBlocks = hn::MaxLanes(W());

/// The products of the lower halves.
HWY_INLINE hn::Vec<W> product(hn::Vec<W> a, hn::Vec<W> b) {
  const hn::Repartition<std::uint32_t, W> half;
  return hn::MulEven(hn::BitCast(half, a), hn::BitCast(half, b));
}

/// kBlocks blocks, one in each lane; a word of theirs is the lower half of a lane.
HWY_INLINE void blocks(std::array<std::uint32_t, 2> key, std::uint64_t first, std::uint32_t* out) {
  const auto low = hn::Set(W(), 0xffffffffu);
  const auto m0 = hn::Set(W(), 0xD2511F53u), m1 = hn::Set(W(), 0xCD9E8D57u);
  const auto counter = hn::Add(hn::Set(W(), first), hn::Iota(W(), 0));
  auto c0 = hn::And(counter, low), c1 = hn::ShiftRight<32>(counter), c2 = hn::Zero(W()), c3 = c2;
  for (int round = 0; round < 10; ++round) {
    const auto p0 = product(m0, c0), p1 = product(m1, c2);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(W(), key[0]));
    c1 = hn::And(p1, low);
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(W(), key[1]));
    c3 = hn::And(p0, low);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  std::uint64_t words[2 * kBlocks];
  hn::StoreInterleaved2(hn::Or(c0, hn::ShiftLeft<32>(c1)), hn::Or(c2, hn::ShiftLeft<32>(c3)), W(),
                        words);
  std::memcpy(out, words, sizeof words);
}
#endif

void fill(std::array<std::uint32_t, 2> key, std::uint64_t first, std::uint32_t* out,
          std::size_t count) {
  constexpr auto kWords = 4 * kBlocks;
  std::size_t i = 0;
  for (; i + kWords <= count; i += kWords) blocks(key, first + i / 4, out + i);
  if (i == count) return;
  std::uint32_t last[kWords];
  blocks(key, first + i / 4, last);
  std::copy_n(last, count - i, out + i);
}

}  // namespace
}  // namespace preceptor::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor {
namespace {
HWY_EXPORT(fill);
}

void philox_blocks(std::array<std::uint32_t, 2> key, std::uint64_t first,
                   std::span<std::uint32_t> out) {
  HWY_DYNAMIC_DISPATCH(fill)(key, first, out.data(), out.size());
}

}  // namespace preceptor
#endif
