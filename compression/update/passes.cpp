#include "compression/update/passes.h"

#include "common/simd_targets.h"

#include <bit>
#include <limits>
#include <stdexcept>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compression/update/passes.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "compression/update/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::compression::HWY_NAMESPACE {
namespace {

HWY_INLINE hn::Vec<U> magnitude(V x) {
  return hn::And(hn::BitCast(U(), x), hn::Set(U(), 0x7fffffffu));
}

/// The largest magnitude's bits, which order as magnitudes do; of NaN and infinity above all others.
struct Most {
  hn::Vec<U> lanes[kSplit];
  HWY_INLINE Most() {
    for (auto& lane : lanes) lane = hn::Zero(U());
  }
  HWY_INLINE void add(std::size_t part, V x) { lanes[part] = hn::Max(lanes[part], magnitude(x)); }
  HWY_INLINE std::uint32_t bits() const {
    std::uint32_t all[kStep], result = 0;
    for (std::size_t part = 0; part < kSplit; ++part)
      hn::StoreU(lanes[part], U(), all + part * kLanes);
    for (const auto one : all) result = one > result ? one : result;
    return result;
  }
};

std::uint32_t largest(const float* x, std::size_t n) {
  Most most;
  for_steps(x, n, [&](const float* p, std::size_t) {
    for (std::size_t part = 0; part < kSplit; ++part) most.add(part, load(p + part * kLanes));
  });
  return most.bits();
}

Peak both(const float* x, std::size_t n) {
  Most most;
  Sums sums;
  for_steps(x, n, [&](const float* p, std::size_t) {
    for (std::size_t part = 0; part < kSplit; ++part) {
      const V v = load(p + part * kLanes);
      most.add(part, v);
      sums.add(part, hn::Mul(v, v));
    }
  });
  return {std::bit_cast<float>(most.bits()), sums.total()};
}

double squares(const float* x, std::size_t n) {
  Sums sums;
  for_steps(x, n, [&](const float* p, std::size_t) {
    for (std::size_t part = 0; part < kSplit; ++part) {
      const V v = load(p + part * kLanes);
      sums.add(part, hn::Mul(v, v));
    }
  });
  return sums.total();
}

double magnitudes(const float* x, std::size_t n) {
  Sums sums;
  for_steps(x, n, [&](const float* p, std::size_t) {
    for (std::size_t part = 0; part < kSplit; ++part)
      sums.add(part, hn::Abs(load(p + part * kLanes)));
  });
  return sums.total();
}

/// y[i] = of(y[i], x[i]).
template <class Of>
HWY_INLINE void map(float* y, const float* x, std::size_t n, const Of& of) {
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(of(load(y + i), load(x + i)), y + i);
  if (i == n) return;
  float a[kStep] = {}, b[kStep] = {};
  std::memcpy(a, y + i, (n - i) * sizeof(float));
  std::memcpy(b, x + i, (n - i) * sizeof(float));
  store(of(load(a), load(b)), a);
  std::memcpy(y + i, a, (n - i) * sizeof(float));
}

void plus(float* y, const float* x, std::size_t n) {
  map(y, x, n, [](V a, V b) { return hn::Add(a, b); });
}
void minus(float* y, const float* x, std::size_t n) {
  map(y, x, n, [](V a, V b) { return hn::Sub(a, b); });
}
void times(float* y, std::size_t n, float factor) {
  constexpr auto kMax = std::numeric_limits<float>::max();
  const V by = set(factor);
  map(y, y, n, [&](V a, V) { return hn::Min(hn::Max(hn::Mul(a, by), set(-kMax)), set(kMax)); });
}
void times_plus(float* y, float factor, const float* x, std::size_t n) {
  const V by = set(factor);
  map(y, x, n, [&](V a, V b) { return hn::Add(hn::Mul(a, by), b); });
}

void plus_times(float* y, float factor, const float* x, std::size_t n) {
  const V by = set(factor);
  map(y, x, n, [&](V a, V b) { return hn::Add(a, hn::Mul(b, by)); });
}

double inner(const float* x, const float* y, std::size_t n) {
  Sums sums;
  for_steps(x, n / kStep * kStep, [&](const float* p, std::size_t i) {
    for (std::size_t part = 0; part < kSplit; ++part)
      sums.add(part, hn::Mul(load(p + part * kLanes), load(y + i + part * kLanes)));
  });
  auto total = sums.total();
  for (auto i = n / kStep * kStep; i < n; ++i) total += double(x[i]) * y[i];
  return total;
}

/// Writes up to n + 16 places.
std::size_t places(const float* x, std::size_t n, float threshold, std::uint32_t* out) {
  std::size_t found = 0;
  const V least = set(threshold);
  for_steps(x, n, [&](const float* p, std::size_t i) {
    for (std::size_t part = 0; part < kSplit; ++part) {
      const auto first = i + part * kLanes;
      auto mask = hn::Ge(hn::Abs(load(p + part * kLanes)), least);
      if (HWY_UNLIKELY(first + kLanes > n))
        mask = hn::And(mask, hn::FirstN(F(), n > first ? n - first : 0));
      if (hn::AllFalse(F(), mask)) continue;
      found += hn::CompressStore(hn::Iota(U(), std::uint32_t(first)), hn::RebindMask(U(), mask),
                                 U(), out + found);
    }
  });
  return found;
}

}  // namespace
}  // namespace preceptor::compression::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::compression {
namespace {

HWY_EXPORT(largest);
HWY_EXPORT(both);
HWY_EXPORT(squares);
HWY_EXPORT(magnitudes);
HWY_EXPORT(plus);
HWY_EXPORT(minus);
HWY_EXPORT(times);
HWY_EXPORT(times_plus);
HWY_EXPORT(plus_times);
HWY_EXPORT(inner);
HWY_EXPORT(places);

std::size_t same_size(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) throw std::logic_error("a pass over vectors of unlike length");
  return a.size();
}

}  // namespace

bool all_finite(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(largest)(x.data(), x.size()) < 0x7f800000;
}
float largest_magnitude(std::span<const float> x) {
  return std::bit_cast<float>(HWY_DYNAMIC_DISPATCH(largest)(x.data(), x.size()));
}
Peak peak(std::span<const float> x) { return HWY_DYNAMIC_DISPATCH(both)(x.data(), x.size()); }
double sum_of_squares(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(squares)(x.data(), x.size());
}
double sum_of_magnitudes(std::span<const float> x) {
  return HWY_DYNAMIC_DISPATCH(magnitudes)(x.data(), x.size());
}
void add(std::span<float> y, std::span<const float> x) {
  HWY_DYNAMIC_DISPATCH(plus)(y.data(), x.data(), same_size(y, x));
}
void subtract(std::span<float> y, std::span<const float> x) {
  HWY_DYNAMIC_DISPATCH(minus)(y.data(), x.data(), same_size(y, x));
}
void multiply(std::span<float> y, float factor) {
  HWY_DYNAMIC_DISPATCH(times)(y.data(), y.size(), factor);
}
void multiply_add(std::span<float> y, float factor, std::span<const float> x) {
  HWY_DYNAMIC_DISPATCH(times_plus)(y.data(), factor, x.data(), same_size(y, x));
}

void add_scaled(std::span<float> y, float factor, std::span<const float> x) {
  HWY_DYNAMIC_DISPATCH(plus_times)(y.data(), factor, x.data(), same_size(y, x));
}
double dot(std::span<const float> x, std::span<const float> y) {
  return HWY_DYNAMIC_DISPATCH(inner)(x.data(), y.data(), same_size(x, y));
}

std::vector<std::uint32_t> places_of_at_least(std::span<const float> x, float threshold) {
  constexpr std::size_t kSlack = 16;  // vectors are stored whole
  static thread_local std::vector<std::uint32_t> room;
  if (room.size() < x.size() + kSlack) room.resize(x.size() + kSlack);
  const auto found = HWY_DYNAMIC_DISPATCH(places)(x.data(), x.size(), threshold, room.data());
  return {room.begin(), room.begin() + std::ptrdiff_t(found)};
}

}  // namespace preceptor::compression
#endif
