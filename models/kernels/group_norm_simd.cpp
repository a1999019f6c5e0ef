#include "models/kernels/group_norm_simd.h"

#include "models/kernels/simd_targets.h"

#include <algorithm>
#include <cmath>
#include <vector>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "models/kernels/group_norm_simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "models/kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::models::kernels::HWY_NAMESPACE {
namespace {

constexpr int kBlock = 4;  ///< vectors of channels at once: whole cache lines of a pixel, and as many independent sums

/// body(first channel, vectors, lanes) over all channels: blocks, then single vectors. The last one overlaps those
/// before it, as results do not depend on how channels are divided; fewer channels than lanes are one short vector.
template <class Body>
HWY_INLINE void for_vectors(std::int64_t channels, const Body& body) {
  const auto lanes = std::int64_t(kLanes);
  std::int64_t c = 0;
  for (; c + kBlock * lanes <= channels; c += kBlock * lanes) body(c, std::integral_constant<int, kBlock>());
  for (; c + lanes <= channels; c += lanes) body(c, std::integral_constant<int, 1>());
  if (c < channels && channels >= lanes) body(channels - lanes, std::integral_constant<int, 1>());
}

/// Of each channel, Σ x and Σ x² with the first pixel's value taken off each x, which leaves little to cancel.
void sums(const GroupNorm& n, const float* x, float* sum, float* square) {
  for_vectors(n.channels, [&](std::int64_t c, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    V pivot[kVectors], s[kVectors], q[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      pivot[i] = load(x + c + i * std::int64_t(kLanes));
      s[i] = q[i] = hn::Zero(F());
    }
    const float* at = x + c;
    for (std::int64_t p = 0; p < n.pixels; ++p, at += n.channels) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        const V v = hn::Sub(load(at + i * std::int64_t(kLanes)), pivot[i]);
        s[i] = hn::Add(s[i], v);
        q[i] = hn::MulAdd(v, v, q[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      store(s[i], sum + c + i * std::int64_t(kLanes));
      store(q[i], square + c + i * std::int64_t(kLanes));
    }
  });
  if (n.channels >= std::int64_t(kLanes)) return;
  for (std::int64_t c = 0; c < n.channels; ++c) {
    float s = 0, q = 0;
    for (std::int64_t p = 0; p < n.pixels; ++p) {
      const float v = x[p * n.channels + c] - x[c];
      s += v;
      q += v * v;
    }
    sum[c] = s;
    square[c] = q;
  }
}

void statistics(const GroupNorm& n, const float* x, float* mean, float* inverse) {
  std::vector<float> scratch(std::size_t(2 * n.channels));
  float *sum = scratch.data(), *square = sum + n.channels;
  sums(n, x, sum, square);
  const auto width = n.channels / n.groups;
  const double pixels = double(n.pixels);
  for (std::int64_t g = 0; g < n.groups; ++g) {
    const auto first = g * width, last = first + width;
    double total = 0, within = 0, between = 0;
    for (auto c = first; c < last; ++c) total += x[c] + sum[c] / pixels;
    const double middle = total / double(width);
    for (auto c = first; c < last; ++c) {
      const double own = x[c] + sum[c] / pixels - middle;
      within += square[c] - double(sum[c]) * sum[c] / pixels;
      between += own * own;
    }
    mean[g] = float(middle);
    inverse[g] = float(1 / std::sqrt(std::max(0.0, within / pixels + between) / double(width) + n.eps));
  }
}

/// out = a·x + b, or a·x + b·y + d, with factors by channel.
void scale(const GroupNorm& n, const float* x, const float* a, const float* b, float* out) {
  for (std::int64_t p = 0; p < n.pixels; ++p, x += n.channels, out += n.channels) {
    std::int64_t c = 0;
    for (; c + std::int64_t(kLanes) <= n.channels; c += std::int64_t(kLanes))
      store(hn::MulAdd(load(x + c), load(a + c), load(b + c)), out + c);
    for (; c < n.channels; ++c) out[c] = x[c] * a[c] + b[c];
  }
}
void combine(const GroupNorm& n, const float* x, const float* y, const float* a, const float* b, const float* d, float* out) {
  for (std::int64_t p = 0; p < n.pixels; ++p, x += n.channels, y += n.channels, out += n.channels) {
    std::int64_t c = 0;
    for (; c + std::int64_t(kLanes) <= n.channels; c += std::int64_t(kLanes))
      store(hn::MulAdd(load(x + c), load(a + c), hn::MulAdd(load(y + c), load(b + c), load(d + c))), out + c);
    for (; c < n.channels; ++c) out[c] = x[c] * a[c] + y[c] * b[c] + d[c];
  }
}

void forward(const GroupNorm& n, const float* x, const float* weight, const float* bias, float* y, float* mean, float* inverse) {
  statistics(n, x, mean, inverse);
  std::vector<float> scratch(std::size_t(2 * n.channels));
  float *a = scratch.data(), *b = a + n.channels;
  const auto width = n.channels / n.groups;
  for (std::int64_t c = 0; c < n.channels; ++c) {
    a[c] = weight[c] * inverse[c / width];
    b[c] = bias[c] - mean[c / width] * a[c];
  }
  scale(n, x, a, b, y);
}

/// Σ grad and Σ grad·(x − middle) of each channel.
void gradient_sums(const GroupNorm& n, const float* x, const float* grad, const float* middle, float* sum, float* product) {
  for_vectors(n.channels, [&](std::int64_t c, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    V centre[kVectors], s[kVectors], q[kVectors];
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      centre[i] = load(middle + c + i * std::int64_t(kLanes));
      s[i] = q[i] = hn::Zero(F());
    }
    const float *at = x + c, *from = grad + c;
    for (std::int64_t p = 0; p < n.pixels; ++p, at += n.channels, from += n.channels) {
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) {
        const V g = load(from + i * std::int64_t(kLanes));
        s[i] = hn::Add(s[i], g);
        q[i] = hn::MulAdd(g, hn::Sub(load(at + i * std::int64_t(kLanes)), centre[i]), q[i]);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      store(s[i], sum + c + i * std::int64_t(kLanes));
      store(q[i], product + c + i * std::int64_t(kLanes));
    }
  });
  if (n.channels >= std::int64_t(kLanes)) return;
  for (std::int64_t c = 0; c < n.channels; ++c) {
    float s = 0, q = 0;
    for (std::int64_t p = 0; p < n.pixels; ++p) {
      const float g = grad[p * n.channels + c];
      s += g;
      q += g * (x[p * n.channels + c] - middle[c]);
    }
    sum[c] = s;
    product[c] = q;
  }
}

void backward(const GroupNorm& n, const float* x, const float* weight, const float* mean, const float* inverse, const float* grad,
              float* to_x, float* to_weight, float* to_bias) {
  std::vector<float> scratch(std::size_t(3 * n.channels));
  float *a = scratch.data(), *b = a + n.channels, *d = b + n.channels;
  const auto width = n.channels / n.groups;
  for (std::int64_t c = 0; c < n.channels; ++c) a[c] = mean[c / width];
  gradient_sums(n, x, grad, a, to_bias, to_weight);
  for (std::int64_t c = 0; c < n.channels; ++c) to_weight[c] *= inverse[c / width];
  if (!to_x) return;
  for (std::int64_t g = 0; g < n.groups; ++g) {
    const auto first = g * width, last = first + width;
    double by_shift = 0, by_scale = 0;
    for (auto c = first; c < last; ++c) {
      by_shift += double(weight[c]) * to_bias[c];
      by_scale += double(weight[c]) * to_weight[c];
    }
    const double count = double(n.pixels * width), r = inverse[g], k = -r * r * by_scale / count;
    for (auto c = first; c < last; ++c) {
      a[c] = weight[c] * inverse[g];
      b[c] = float(k);
      d[c] = float(-r * by_shift / count - mean[g] * k);
    }
  }
  combine(n, grad, x, a, b, d, to_x);
}

/// Taps of one row of the kernel over the whole image, for `lanes` channels from `c` on.
template <int K, class T, class Load, class Madd>
HWY_INLINE void taps(const Depthwise& s, const float* x, const float* grad, int ky, T (&sum)[K], const Load& at, const Madd& madd) {
  for (std::int64_t oy = 0; oy < s.out_height; ++oy) {
    const auto iy = oy * s.stride - s.padding + ky;
    if (iy < 0 || iy >= s.height) continue;
    const float *row = x + iy * s.width * s.channels, *from = grad + oy * s.out_width * s.channels;
    for (std::int64_t ox = 0; ox < s.out_width; ++ox) {
      const auto ix = ox * s.stride - s.padding;
      const T g = at(from + ox * s.channels);
      if (HWY_LIKELY(ix >= 0 && ix + K <= s.width)) {
#pragma GCC unroll 7
        for (int kx = 0; kx < K; ++kx) sum[kx] = madd(g, at(row + (ix + kx) * s.channels), sum[kx]);
      } else {
#pragma GCC unroll 7
        for (int kx = 0; kx < K; ++kx)
          if (ix + kx >= 0 && ix + kx < s.width) sum[kx] = madd(g, at(row + (ix + kx) * s.channels), sum[kx]);
      }
    }
  }
}

template <int K>
void depthwise_of(const Depthwise& s, const float* x, const float* grad, float* to_weight) {
  const auto lanes = std::int64_t(kLanes);
  const auto one_vector = [&](std::int64_t c) {
    for (int ky = 0; ky < K; ++ky) {
      V sum[K];
      for (auto& one : sum) one = hn::Zero(F());
      taps<K>(s, x + c, grad + c, ky, sum, [](const float* p) HWY_ATTR { return load(p); },
              [](V a, V b, V z) HWY_ATTR { return hn::MulAdd(a, b, z); });
      for (int kx = 0; kx < K; ++kx) store(sum[kx], to_weight + (ky * K + kx) * s.channels + c);
    }
  };
  std::int64_t c = 0;
  for (; c + lanes <= s.channels; c += lanes) one_vector(c);
  if (c < s.channels && s.channels >= lanes) one_vector(s.channels - lanes);
  if (s.channels >= lanes) return;
  for (c = 0; c < s.channels; ++c)
    for (int ky = 0; ky < K; ++ky) {
      float sum[K] = {};
      taps<K>(s, x + c, grad + c, ky, sum, [](const float* p) { return *p; }, [](float a, float b, float z) { return a * b + z; });
      for (int kx = 0; kx < K; ++kx) to_weight[(ky * K + kx) * s.channels + c] = sum[kx];
    }
}

void depthwise(const Depthwise& s, const float* x, const float* grad, float* to_weight) {
  if (s.kernel == 3) depthwise_of<3>(s, x, grad, to_weight);
  if (s.kernel == 5) depthwise_of<5>(s, x, grad, to_weight);
  if (s.kernel == 7) depthwise_of<7>(s, x, grad, to_weight);
}

}  // namespace
}  // namespace preceptor::models::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::models::kernels {
namespace {
HWY_EXPORT(statistics);
HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(depthwise);
}  // namespace

void group_norm_statistics(const GroupNorm& norm, const float* x, float* mean, float* inverse) {
  HWY_DYNAMIC_DISPATCH(statistics)(norm, x, mean, inverse);
}
void group_norm_forward(const GroupNorm& norm, const float* x, const float* weight, const float* bias, float* y, float* mean, float* inverse) {
  HWY_DYNAMIC_DISPATCH(forward)(norm, x, weight, bias, y, mean, inverse);
}
void group_norm_backward(const GroupNorm& norm, const float* x, const float* weight, const float* mean, const float* inverse,
                         const float* grad, float* to_x, float* to_weight, float* to_bias) {
  HWY_DYNAMIC_DISPATCH(backward)(norm, x, weight, mean, inverse, grad, to_x, to_weight, to_bias);
}
void depthwise_gradient(const Depthwise& conv, const float* x, const float* grad, float* to_weight) {
  HWY_DYNAMIC_DISPATCH(depthwise)(conv, x, grad, to_weight);
}

}  // namespace preceptor::models::kernels
#endif
