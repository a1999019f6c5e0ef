#include "models/kernels/selective_scan_simd.h"

#include "models/kernels/simd_targets.h"

#include <hwy/aligned_allocator.h>

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "models/kernels/selective_scan_simd.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "models/kernels/simd_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::models::kernels::HWY_NAMESPACE {
namespace {

// States that one loop over a chunk carries. Backward has three vectors for each: 32 registers with AVX-512, 16 elsewhere.
constexpr int kForwardStates = 8, kBackwardStates = kLanes == 16 ? 8 : 4;

/// A chunk of steps of kLanes channels in the order of the scan, dense, with what does not depend on the state.
struct Chunk {
  int steps;
  const std::int32_t* rows;                  ///< token of each step
  alignas(64) float u[kChunk * kLanes];      ///< backward only, as are slope, grad and the sums
  alignas(64) float d[kChunk * kLanes];      ///< softplus(delta + bias)
  alignas(64) float slope[kChunk * kLanes];  ///< its derivative
  alignas(64) float x[kChunk * kLanes];      ///< d·u
  alignas(64) float y[kChunk * kLanes];
  alignas(64) float grad[kChunk * kLanes];   ///< that of y
  alignas(64) float by_exponent[kChunk * kLanes];  ///< Σ_n gradient by d·a, times a·log2 e
  alignas(64) float by_input[kChunk * kLanes];     ///< gradient by d·u
  const float *b[kChunk], *c[kChunk];
};

/// Rows of one (sample, order): everything that a loop over states needs beside the chunk. Pointers stand at the channel.
struct States {
  std::int64_t count, stride;  ///< N, P
  const float* a;
  const float* before;         ///< h before the chunk
};

void read_rows(const Scan& s, std::int64_t k, std::int64_t b, std::int64_t from, Chunk& chunk) {
  chunk.steps = int(std::min(kChunk, s.length - from));
  chunk.rows = s.order + k * s.length + from;
  for (int t = 0; t < chunk.steps; ++t) {
    chunk.b[t] = s.b.at(k, b, chunk.rows[t]);
    chunk.c[t] = s.c.at(k, b, chunk.rows[t]);
  }
}

template <int S>
void advance(const States& s, Chunk& chunk, std::int64_t n, float* after) {
  V h[S];
  const float* a = s.a + n * s.stride;
#pragma GCC unroll 8
  for (int i = 0; i < S; ++i) h[i] = load(s.before + (n + i) * s.stride);
  for (int t = 0; t < chunk.steps; ++t) {
    const V d = load(chunk.d + t * kLanes), x = load(chunk.x + t * kLanes);
    const float *b = chunk.b[t] + n, *c = chunk.c[t] + n;
    V y = load(chunk.y + t * kLanes), z = hn::Zero(F());  // two sums: half the latency
#pragma GCC unroll 8
    for (int i = 0; i < S; ++i) {
      h[i] = hn::MulAdd(exp2(hn::Mul(d, load(a + i * s.stride))), h[i], hn::Mul(x, set(b[i])));
      (i % 2 ? z : y) = hn::MulAdd(set(c[i]), h[i], i % 2 ? z : y);
    }
    store(hn::Add(y, z), chunk.y + t * kLanes);
  }
#pragma GCC unroll 8
  for (int i = 0; i < S; ++i) store(h[i], after + (n + i) * s.stride);
}

/// N in blocks of S, what is left in blocks of S/2, and so on.
template <int S>
void advance_all(const States& s, Chunk& chunk, std::int64_t n, float* after) {
  for (; n + S <= s.count; n += S) advance<S>(s, chunk, n, after);
  if constexpr (S > 1) advance_all<S / 2>(s, chunk, n, after);
}

/// Gradients that the loops over states add to; pointers stand at the channel, except those of the sums over channels.
struct StateGradients {
  float* carry;                ///< [N, P]: of h before the chunk that was done last, which is the next in time
  float* a;                    ///< [N, P]
  float *b, *c;                ///< [kChunk, N] vectors: lanes are summed when all channels are done
};

template <int S>
void retreat(const States& s, Chunk& chunk, std::int64_t n, const StateGradients& out) {
  alignas(64) float befores[kChunk * S * kLanes], decays[kChunk * S * kLanes];
  const float* a = s.a + n * s.stride;
  V h[S], carry[S], da[S];
#pragma GCC unroll 8
  for (int i = 0; i < S; ++i) h[i] = load(s.before + (n + i) * s.stride);
  for (int t = 0; t < chunk.steps; ++t) {
    const V d = load(chunk.d + t * kLanes), x = load(chunk.x + t * kLanes);
    const float* b = chunk.b[t] + n;
#pragma GCC unroll 8
    for (int i = 0; i < S; ++i) {
      const V decay = exp2(hn::Mul(d, load(a + i * s.stride)));
      store(h[i], befores + (t * S + i) * kLanes);
      store(decay, decays + (t * S + i) * kLanes);
      h[i] = hn::MulAdd(decay, h[i], hn::Mul(x, set(b[i])));
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < S; ++i) {
    carry[i] = load(out.carry + (n + i) * s.stride);
    da[i] = hn::Zero(F());
  }
  for (int t = chunk.steps - 1; t >= 0; --t) {
    const V d = load(chunk.d + t * kLanes), x = load(chunk.x + t * kLanes), g = load(chunk.grad + t * kLanes);
    const float *b = chunk.b[t] + n, *c = chunk.c[t] + n;
    float *to_b = out.b + (t * s.count + n) * kLanes, *to_c = out.c + (t * s.count + n) * kLanes;
    V by_exponent = load(chunk.by_exponent + t * kLanes), by_input = load(chunk.by_input + t * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < S; ++i) {
      const V dh = hn::MulAdd(g, set(c[i]), carry[i]);
      store(hn::MulAdd(g, h[i], load(to_c + i * kLanes)), to_c + i * kLanes);
      store(hn::MulAdd(dh, x, load(to_b + i * kLanes)), to_b + i * kLanes);
      h[i] = load(befores + (t * S + i) * kLanes);
      carry[i] = hn::Mul(dh, load(decays + (t * S + i) * kLanes));
      const V exponent = hn::Mul(carry[i], h[i]);  // gradient by d·a
      da[i] = hn::MulAdd(exponent, d, da[i]);
      by_exponent = hn::MulAdd(exponent, load(a + i * s.stride), by_exponent);
      by_input = hn::MulAdd(dh, set(b[i]), by_input);
    }
    store(by_exponent, chunk.by_exponent + t * kLanes);
    store(by_input, chunk.by_input + t * kLanes);
  }
#pragma GCC unroll 8
  for (int i = 0; i < S; ++i) {
    float* to_a = out.a + (n + i) * s.stride;
    store(carry[i], out.carry + (n + i) * s.stride);
    store(hn::Add(load(to_a), da[i]), to_a);
  }
}

template <int S>
void retreat_all(const States& s, Chunk& chunk, std::int64_t n, const StateGradients& out) {
  for (; n + S <= s.count; n += S) retreat<S>(s, chunk, n, out);
  if constexpr (S > 1) retreat_all<S / 2>(s, chunk, n, out);
}

// Chunks are the outer loop and channels the inner, so that memory is walked by whole rows.
void forward(const Scan& s, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* kept) {
  const auto width = padded(s.channels), size = s.states * width, chunks = s.chunks();
  const auto own = hwy::AllocateAligned<float>(kept ? 1 : std::size_t(size));  // Highway aborts at 0
  Chunk chunk;
  for (std::int64_t k = 0; k < s.orders; ++k) {
    float* h = kept ? kept + (b * s.orders + k) * (chunks + 1) * size : own.get();
    for (std::int64_t n = 0; n < s.states; ++n) std::fill(h + n * width + first, h + n * width + padded(last), 0.f);
    for (std::int64_t j = 0; j < chunks; ++j) {
      float* after = kept ? h + size : h;
      read_rows(s, k, b, j * kChunk, chunk);
      for (auto channel = first; channel < last; channel += std::int64_t(kLanes)) {
        const auto lanes = std::size_t(last - channel);
        const V bias = load(s.delta_bias + k * width + channel), skip = load(s.skip + k * width + channel);
        for (int t = 0; t < chunk.steps; ++t) {
          const V u = load(s.u + (b * s.length + chunk.rows[t]) * s.channels + channel, lanes);
          const V d = softplus(hn::Add(load(s.delta.at(k, b, chunk.rows[t]) + channel, lanes), bias)).value;
          store(d, chunk.d + t * kLanes);
          store(hn::Mul(d, u), chunk.x + t * kLanes);
          store(hn::Mul(skip, u), chunk.y + t * kLanes);
        }
        advance_all<kForwardStates>({s.states, width, s.a + k * size + channel, h + channel}, chunk, 0, after + channel);
        for (int t = 0; t < chunk.steps; ++t) {
          float* row = y + (b * s.length + chunk.rows[t]) * s.channels + channel;
          const V sum = load(chunk.y + t * kLanes);
          store(k == 0 ? sum : hn::Add(load(row, lanes), sum), row, lanes);
        }
      }
      h = after;
    }
  }
}

void backward(const Scan& s, std::int64_t b, const float* grad, const float* kept, const ScanGradients& out) {
  const auto width = padded(s.channels), size = s.states * width, chunks = s.chunks();
  const auto vectors = (kChunk * s.states + std::int64_t(kLanes) - 1) / std::int64_t(kLanes) * std::int64_t(kLanes);
  const auto carry = hwy::AllocateAligned<float>(std::size_t(size));
  const auto sums = hwy::AllocateAligned<float>(2 * std::size_t(vectors) * kLanes);  // of b, then of c
  const auto by_row = hwy::AllocateAligned<float>(2 * std::size_t(vectors));
  float* const sums_c = sums.get() + std::size_t(vectors) * kLanes;
  Chunk chunk;
  for (std::int64_t k = 0; k < s.orders; ++k) {
    const float* h = kept + (b * s.orders + k) * (chunks + 1) * size;
    float *to_a = out.a + (b * s.orders + k) * size, *to_skip = out.skip + (b * s.orders + k) * width,
          *to_bias = out.delta_bias + (b * s.orders + k) * width;
    std::fill(carry.get(), carry.get() + size, 0.f);
    for (auto j = chunks - 1; j >= 0; --j) {
      read_rows(s, k, b, j * kChunk, chunk);
      std::fill(sums.get(), sums.get() + 2 * std::size_t(vectors) * kLanes, 0.f);
      for (std::int64_t channel = 0; channel < s.channels; channel += std::int64_t(kLanes)) {
        const auto lanes = std::size_t(s.channels - channel);
        const V bias = load(s.delta_bias + k * width + channel), skip = load(s.skip + k * width + channel);
        for (int t = 0; t < chunk.steps; ++t) {
          const auto row = (b * s.length + chunk.rows[t]) * s.channels + channel;
          const V u = load(s.u + row, lanes);
          const auto d = softplus(hn::Add(load(s.delta.at(k, b, chunk.rows[t]) + channel, lanes), bias));
          store(u, chunk.u + t * kLanes);
          store(d.value, chunk.d + t * kLanes);
          store(d.slope, chunk.slope + t * kLanes);
          store(hn::Mul(d.value, u), chunk.x + t * kLanes);
          store(load(grad + row, lanes), chunk.grad + t * kLanes);
          store(hn::Zero(F()), chunk.by_exponent + t * kLanes);
          store(hn::Zero(F()), chunk.by_input + t * kLanes);
        }
        retreat_all<kBackwardStates>({s.states, width, s.a + k * size + channel, h + j * size + channel}, chunk, 0,
                                     {carry.get() + channel, to_a + channel, sums.get(), sums_c});
        V d_skip = hn::Zero(F()), d_bias = d_skip;
        for (int t = 0; t < chunk.steps; ++t) {
          const V u = load(chunk.u + t * kLanes), g = load(chunk.grad + t * kLanes), by_input = load(chunk.by_input + t * kLanes);
          const V by_d = hn::MulAdd(u, by_input, hn::Mul(set(0.693147181f), load(chunk.by_exponent + t * kLanes)));
          const V by_delta = hn::Mul(by_d, load(chunk.slope + t * kLanes));
          store(by_delta, out.delta + ((k * s.batch + b) * s.length + chunk.rows[t]) * s.channels + channel, lanes);
          float* row = out.u + (b * s.length + chunk.rows[t]) * s.channels + channel;
          const V by_u = hn::MulAdd(skip, g, hn::Mul(load(chunk.d + t * kLanes), by_input));
          store(k == 0 ? by_u : hn::Add(load(row, lanes), by_u), row, lanes);
          d_bias = hn::Add(d_bias, by_delta);
          d_skip = hn::MulAdd(g, u, d_skip);
        }
        store(hn::Add(load(to_bias + channel), d_bias), to_bias + channel);
        store(hn::Add(load(to_skip + channel), d_skip), to_skip + channel);
      }
      for (std::size_t i = 0; i < 2 * std::size_t(vectors); i += kLanes)
        store(sum_rows(sums.get() + i * kLanes), by_row.get() + i);
      for (int t = 0; t < chunk.steps; ++t) {
        const auto row = ((k * s.batch + b) * s.length + chunk.rows[t]) * s.states;
        std::copy_n(by_row.get() + t * s.states, s.states, out.b + row);
        std::copy_n(by_row.get() + vectors + t * s.states, s.states, out.c + row);
      }
    }
  }
}

const char* name() { return hwy::TargetName(HWY_TARGET); }

}  // namespace
}  // namespace preceptor::models::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::models::kernels {
namespace {
HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(name);
}  // namespace

void selective_scan_forward(const Scan& scan, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* kept) {
  HWY_DYNAMIC_DISPATCH(forward)(scan, b, first, last, y, kept);
}
void selective_scan_backward(const Scan& scan, std::int64_t b, const float* grad, const float* kept, const ScanGradients& out) {
  HWY_DYNAMIC_DISPATCH(backward)(scan, b, grad, kept, out);
}
const char* simd_target() { return HWY_DYNAMIC_DISPATCH(name)(); }

}  // namespace preceptor::models::kernels
#endif
