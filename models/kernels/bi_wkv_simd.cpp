#include "models/kernels/bi_wkv_simd.h"

#include "models/kernels/selective_scan_simd.h"
#include "models/kernels/simd_targets.h"

#include <hwy/aligned_allocator.h>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "models/kernels/bi_wkv_simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "models/kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::models::kernels::HWY_NAMESPACE {
namespace {

/// Σ e^{−(steps since i) w + κ_i} x_i over what a pass has met, for two series x, as e^top (p, q): whatever the keys κ, the
/// largest term of p/x is about 1. What rounding takes from top is given back to p and q, or w would drift over long sequences.
struct Sums {
  V top, p, q;
  static HWY_INLINE Sums none() { return {set(-1e30f), hn::Zero(F()), hn::Zero(F())}; }

  struct Step {
    V kept, added;  ///< factors
  };
  HWY_INLINE Step meet(V key, V w) {
    const V before = top;
    top = hn::Max(hn::Sub(top, w), key);
    return {exp(hn::Sub(hn::Sub(before, top), w)), exp(hn::Sub(key, top))};
  }
  HWY_INLINE void add(Step step, V x, V z) {
    p = hn::MulAdd(step.kept, p, hn::Mul(step.added, x));
    q = hn::MulAdd(step.kept, q, hn::Mul(step.added, z));
  }
};

void forward(const Wkv& s, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* top, float* inverse) {
  const auto later = hwy::AllocateAligned<float>(std::size_t(s.length) * 3 * kLanes);
  const V one = set(1.f);
  for (auto channel = first; channel < last; channel += std::int64_t(kLanes)) {
    const auto lanes = std::size_t(last - channel);
    const V w = load(s.decay + channel), u = load(s.first + channel);
    const auto row = [&](std::int64_t t) { return (b * s.length + t) * s.channels + channel; };
    auto after = Sums::none();
    for (auto t = s.length - 1; t >= 0; --t) {
      float* to = later.get() + std::size_t(t) * 3 * kLanes;
      store(after.top, to);
      store(after.p, to + kLanes);
      store(after.q, to + 2 * kLanes);
      after.add(after.meet(load(s.k + row(t), lanes), w), load(s.v + row(t), lanes), one);
    }
    auto before = Sums::none();
    for (std::int64_t t = 0; t < s.length; ++t) {
      const float* from = later.get() + std::size_t(t) * 3 * kLanes;
      const V k = load(s.k + row(t), lanes), v = load(s.v + row(t), lanes), top_after = load(from);
      const V most = hn::Max(hn::Max(before.top, top_after), hn::Add(k, u));
      const V past = exp(hn::Sub(before.top, most)), future = exp(hn::Sub(top_after, most));
      const V own = exp(hn::Add(hn::Sub(k, most), u));
      const V sum = hn::MulAdd(past, before.p, hn::MulAdd(future, load(from + kLanes), hn::Mul(own, v)));
      const V inv = hn::Div(one, hn::MulAdd(past, before.q, hn::MulAdd(future, load(from + 2 * kLanes), own)));
      store(hn::Mul(sum, inv), y + row(t), lanes);
      if (top) store(most, top + row(t), lanes);
      if (inverse) store(inv, inverse + row(t), lanes);
      before.add(before.meet(k, w), v, one);
    }
  }
}

/// The weight of value i in y_t is e^{s + k_i} / D_t, with s that of the pair. So the gradients at i are sums over t of the
/// same form as the forward pass, with keys −log D_t; and e^{k_i} times such a sum never overflows, as D_t has it as a term.
/// The derivative by w brings down the steps between: d(p, q) are (p, q) with each term times its number of steps.
void backward(const Wkv& s, std::int64_t b, std::int64_t first, std::int64_t last, const float* y, const float* top,
              const float* inverse, const float* grad, float* to_k, float* to_v, float* to_decay, float* to_first) {
  for (auto channel = first; channel < last; channel += std::int64_t(kLanes)) {
    const auto lanes = std::size_t(last - channel);
    const V w = load(s.decay + channel), u = load(s.first + channel);
    V d_w = hn::Zero(F()), d_u = d_w;
    for (const bool forwards : {true, false}) {
      auto sums = Sums::none();
      V dp = hn::Zero(F()), dq = dp, part = dp;  // part: 64 terms of d_w, so that long sums round less
      for (std::int64_t step = 0; step < s.length; ++step) {
        const auto row = (b * s.length + (forwards ? step : s.length - 1 - step)) * s.channels + channel;
        const V k = load(s.k + row, lanes), v = load(s.v + row, lanes), out = load(y + row, lanes);
        const V highest = load(top + row, lanes), g = hn::Mul(load(grad + row, lanes), load(inverse + row, lanes));
        const V scale = exp(hn::Add(k, sums.top));
        V d_v = hn::Mul(scale, sums.p), d_k = hn::Mul(scale, hn::Sub(hn::Mul(v, sums.p), sums.q));
        part = hn::MulAdd(scale, hn::Sub(dq, hn::Mul(v, dp)), part);
        if (forwards) {
          const V own = hn::Mul(g, exp(hn::Add(hn::Sub(k, highest), u))), by_u = hn::Mul(own, hn::Sub(v, out));
          d_v = hn::Add(d_v, own);
          d_k = hn::Add(d_k, by_u);
          d_u = hn::Add(d_u, by_u);
        } else {
          d_v = hn::Add(d_v, load(to_v + row, lanes));
          d_k = hn::Add(d_k, load(to_k + row, lanes));
        }
        store(d_v, to_v + row, lanes);
        store(d_k, to_k + row, lanes);
        const auto factors = sums.meet(hn::Neg(highest), w);
        dp = hn::Mul(factors.kept, hn::Add(dp, sums.p));
        dq = hn::Mul(factors.kept, hn::Add(dq, sums.q));
        sums.add(factors, g, hn::Mul(g, out));
        if (step % 64 == 63) {
          d_w = hn::Add(d_w, part);
          part = hn::Zero(F());
        }
      }
      d_w = hn::Add(d_w, part);
    }
    store(d_w, to_decay + b * padded(s.channels) + channel);
    store(d_u, to_first + b * padded(s.channels) + channel);
  }
}

}  // namespace
}  // namespace preceptor::models::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::models::kernels {
namespace {
HWY_EXPORT(forward);
HWY_EXPORT(backward);
}  // namespace

void bi_wkv_forward(const Wkv& wkv, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* top, float* inverse) {
  HWY_DYNAMIC_DISPATCH(forward)(wkv, b, first, last, y, top, inverse);
}
void bi_wkv_backward(const Wkv& wkv, std::int64_t b, std::int64_t first, std::int64_t last, const float* y, const float* top,
                     const float* inverse, const float* grad, float* to_k, float* to_v, float* to_decay, float* to_first) {
  HWY_DYNAMIC_DISPATCH(backward)(wkv, b, first, last, y, top, inverse, grad, to_k, to_v, to_decay, to_first);
}

}  // namespace preceptor::models::kernels
#endif
