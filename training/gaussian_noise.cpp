#include "training/gaussian_noise.h"

#include "models/kernels/simd_targets.h"

#include <openssl/rand.h>

#include <array>
#include <bit>
#include <climits>
#include <cmath>
#include <numbers>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "training/gaussian_noise.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace preceptor::training::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// Words of 64 bits → as many normals, in place of them, `count` a multiple of 16: the first half gives radii, the second
/// angles. Results depend on the lanes only by rounding.
void normals(const std::uint64_t* words, std::size_t count, double* out) {
  const hn::CappedTag<double, 8> f;
  const hn::RebindToUnsigned<decltype(f)> u;
  const auto lanes = hn::Lanes(f);
  const auto one = hn::Set(f, 1.0), exponent = hn::BitCast(f, hn::Set(u, 0x3ff0000000000000));
  const auto uniform = [&](const std::uint64_t* at) HWY_ATTR {  // (0, 1), 52 bits
    const auto mantissa = hn::ShiftRight<12>(hn::LoadU(u, at));
    return hn::Add(hn::Sub(hn::BitCast(f, hn::Or(mantissa, hn::BitCast(u, exponent))), one), hn::Set(f, 0x1p-53));
  };
  const std::size_t half = count / 2;
  for (std::size_t i = 0; i < half; i += lanes) {
    const auto radius = hn::Sqrt(hn::Mul(hn::Set(f, -2.0), hn::Log(f, uniform(words + i))));
    const auto angle = hn::Mul(hn::Set(f, 2 * std::numbers::pi), uniform(words + half + i));
    hn::StoreU(hn::Mul(radius, hn::Cos(f, angle)), f, out + i);
    hn::StoreU(hn::Mul(radius, hn::Sin(f, angle)), f, out + half + i);
  }
}

/// sum ← (⌊sum / grid⌉ + ⌊normal · steps⌉) · grid.
void add_on_grid(float* sum, const double* normal, std::size_t count, double grid, double steps) {
  const hn::CappedTag<double, 8> f;
  const hn::Rebind<float, decltype(f)> narrow;
  const auto lanes = hn::Lanes(f);
  const auto width = hn::Set(f, grid), inverse = hn::Set(f, 1 / grid), scale = hn::Set(f, steps);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto on = hn::Round(hn::Mul(hn::PromoteTo(f, hn::LoadU(narrow, sum + i)), inverse));
    const auto noise = hn::Round(hn::Mul(hn::LoadU(f, normal + i), scale));
    hn::StoreU(hn::DemoteTo(narrow, hn::Mul(hn::Add(on, noise), width)), narrow, sum + i);
  }
  for (; i < count; ++i) sum[i] = float((std::nearbyint(sum[i] * (1 / grid)) + std::nearbyint(normal[i] * steps)) * grid);
}

}  // namespace
}  // namespace preceptor::training::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::training {
namespace {

HWY_EXPORT(normals);
HWY_EXPORT(add_on_grid);

constexpr std::size_t kBlock = 1024;  ///< words at a time: they stay in the first cache

}  // namespace

Result<void> PrivacyRandomness::fill(std::span<std::uint64_t> words) {
  if (stream_) {
    stream_->fill({reinterpret_cast<std::uint32_t*>(words.data()), words.size() * 2});
    return {};
  }
  while (!words.empty()) {
    const auto some = words.first(std::min(words.size(), std::size_t(INT_MAX) / 16));
    if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(some.data()), int(some.size_bytes())) != 1)
      return fail(Code::kUnavailable, "OpenSSL has no random bytes for the noise of private training");
    words = words.subspan(some.size());
  }
  return {};
}

Result<void> add_gaussian(std::span<float> sum, double deviation, PrivacyRandomness& randomness) {
  if (deviation == 0) return {};
  std::array<std::uint64_t, kBlock> words;
  std::array<double, kBlock> normal;
  while (!sum.empty()) {
    const auto piece = sum.first(std::min(sum.size(), kBlock));
    TRY(randomness.fill(words));
    HWY_DYNAMIC_DISPATCH(normals)(words.data(), kBlock, normal.data());
    HWY_DYNAMIC_DISPATCH(add_on_grid)(piece.data(), normal.data(), piece.size(), deviation * kNoiseGrid, 1 / kNoiseGrid);
    sum = sum.subspan(piece.size());
  }
  OPENSSL_cleanse(words.data(), sizeof words);
  OPENSSL_cleanse(normal.data(), sizeof normal);
  return {};
}

Result<std::vector<std::size_t>> poisson_sample(std::size_t count, double rate, PrivacyRandomness& randomness) {
  std::vector<std::uint64_t> words(count);
  TRY(randomness.fill(words));
  std::vector<std::size_t> drawn;
  for (std::size_t i = 0; i < count; ++i)
    if (double(words[i] >> 11) * 0x1p-53 < rate) drawn.push_back(i);
  return drawn;
}

}  // namespace preceptor::training
#endif
