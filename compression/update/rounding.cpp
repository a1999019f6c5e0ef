#include "compression/update/rounding.h"

#include "common/simd_targets.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/update/rounding.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "compression/update/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::compression::HWY_NAMESPACE {
namespace {

constexpr int kFraction = 23;  // bits behind the point
using I = hn::RebindToSigned<F>;
using B = hn::Rebind<std::uint8_t, F>;

/// |x / scale| is at most 1, so (x / scale + 1) Q, and noise below one level, fit 31 bits.
HWY_INLINE hn::Vec<B> round(const float* x, V scale, V to_fixed, hn::Vec<I> zero,
                            const std::uint32_t* noise) {
  const V unit = hn::Min(hn::Max(hn::Div(load(x), scale), set(-1)), set(1));
  const auto dither = hn::BitCast(I(), hn::ShiftRight<32 - kFraction>(hn::LoadU(U(), noise)));
  const auto fixed = hn::Add(hn::Add(zero, hn::ConvertTo(I(), hn::Mul(unit, to_fixed))), dither);
  return hn::DemoteTo(B(), hn::ShiftRight<kFraction>(fixed));
}

void round_all(const float* x, std::size_t n, float scale, unsigned levels,
               const std::uint32_t* noise, std::uint8_t* codes) {
  const V divisor = set(scale), to_fixed = set(float(levels << kFraction));
  const auto zero = hn::Set(I(), std::int32_t(levels << kFraction));
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    hn::StoreU(round(x + i, divisor, to_fixed, zero, noise + i), B(), codes + i);
  if (i == n) return;
  float last[kStep] = {};
  std::uint32_t bits[kStep] = {};
  std::uint8_t made[kStep];
  std::memcpy(last, x + i, (n - i) * sizeof(float));
  std::memcpy(bits, noise + i, (n - i) * sizeof(std::uint32_t));
  hn::StoreU(round(last, divisor, to_fixed, zero, bits), B(), made);
  std::memcpy(codes + i, made, n - i);
}

HWY_INLINE hn::Vec<I> value(const std::uint8_t* codes, hn::Vec<I> levels, V step, V scale,
                            float* x) {
  const auto code = hn::PromoteTo(I(), hn::LoadU(B(), codes));
  store(hn::Mul(hn::Mul(hn::ConvertTo(F(), hn::Sub(code, levels)), step), scale), x);
  return code;
}

unsigned values(const std::uint8_t* codes, std::size_t n, unsigned levels, float scale, float* x) {
  const V step = set(1.0f / float(levels)), factor = set(scale);
  const auto zero = hn::Set(I(), std::int32_t(levels));
  auto high = hn::Zero(I());
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    high = hn::Max(high, value(codes + i, zero, step, factor, x + i));
  if (i < n) {
    std::uint8_t last[kStep] = {};
    float made[kStep];
    std::memcpy(last, codes + i, n - i);
    high = hn::Max(high, value(last, zero, step, factor, made));
    std::memcpy(x + i, made, (n - i) * sizeof(float));
  }
  std::int32_t all[kLanes], most = 0;
  hn::StoreU(high, I(), all);
  for (const auto code : all) most = code > most ? code : most;
  return unsigned(most);
}

}  // namespace
}  // namespace preceptor::compression::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::compression {
namespace {

HWY_EXPORT(round_all);
HWY_EXPORT(values);

constexpr std::uint64_t kLow8 = 0x00ff00ff00ff00ff, kLow16 = 0x0000ffff0000ffff;

/// Eight codes, a byte each, as eight fields of `bits` at the lower end, and back.
std::uint64_t squeeze(std::uint64_t x, unsigned bits) {
  x = (x | x >> (8 - bits)) & kLow8;
  x = (x | x >> (16 - 2 * bits)) & kLow16;
  return (x | x >> (32 - 4 * bits)) & 0xffffffff;
}
std::uint64_t spread(std::uint64_t x, unsigned bits) {
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  const auto four = (std::uint64_t{1} << 4 * bits) - 1, two = (std::uint64_t{1} << 2 * bits) - 1;
  x = (x & four) | (x >> 4 * bits & four) << 32;
  x = (x & two * 0x0000000100000001) | (x >> 2 * bits & two * 0x0000000100000001) << 16;
  return (x & mask * 0x0001000100010001) | (x >> bits & mask * 0x0001000100010001) << 8;
}

}  // namespace

void round_stochastically(std::span<const float> x, float scale, unsigned levels,
                          std::span<const std::uint32_t> noise, std::byte* codes) {
  HWY_DYNAMIC_DISPATCH(round_all)
  (x.data(), x.size(), scale, levels, noise.data(), reinterpret_cast<std::uint8_t*>(codes));
}

unsigned values_of_codes(std::span<const std::byte> codes, unsigned levels, float scale,
                         float* x) {
  return HWY_DYNAMIC_DISPATCH(values)
  (reinterpret_cast<const std::uint8_t*>(codes.data()), codes.size(), levels, scale, x);
}

void pack_codes(std::span<const std::byte> codes, unsigned bits, Bytes& out) {
  if (bits == 8) return ByteWriter(out).put(codes);
  const auto start = out.size();
  out.resize(start + codes.size() * bits / 8);
  for (std::size_t i = 0, to = start; i < codes.size(); i += 8, to += bits) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, codes.data() + i, std::min<std::size_t>(8, codes.size() - i));
    eight = squeeze(eight, bits);
    std::memcpy(out.data() + to, &eight, std::min<std::size_t>(bits, out.size() - to));
  }
}

Bytes unpack_codes(std::span<const std::byte> packed, unsigned bits) {
  if (bits == 8) return {packed.begin(), packed.end()};
  Bytes codes(packed.size() * 8 / bits);
  for (std::size_t i = 0, from = 0; i < codes.size(); i += 8, from += bits) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, packed.data() + from, std::min<std::size_t>(bits, packed.size() - from));
    eight = spread(eight, bits);
    std::memcpy(codes.data() + i, &eight, std::min<std::size_t>(8, codes.size() - i));
  }
  return codes;
}

}  // namespace preceptor::compression
#endif
