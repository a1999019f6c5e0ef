#include "deploy/kernels/elementwise.h"

#include "deploy/kernels/simd_targets.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deploy/kernels/elementwise.cpp"
#include <hwy/foreach_target.h>
// After foreach_target.h:
#include "deploy/kernels/epilogue-inl.h"

HWY_BEFORE_NAMESPACE();
namespace preceptor::deploy::kernels::HWY_NAMESPACE {
namespace {

constexpr std::int64_t kStep = std::int64_t(kLanes);

/// row(offsets of the four operands) for every turn of the outer loops.
template <class Row>
HWY_INLINE void for_rows(const Loop& loop, const Row& row) {
  std::array<std::int64_t, kMaxDims> at{};
  std::array<std::int64_t, 4> offsets{};
  while (true) {
    row(offsets);
    int d = loop.dims - 2;
    for (; d >= 0; --d) {
      for (std::size_t i = 0; i < 4; ++i) offsets[i] += loop.strides[i][std::size_t(d)];
      if (++at[std::size_t(d)] < loop.sizes[std::size_t(d)]) break;
      for (std::size_t i = 0; i < 4; ++i) offsets[i] -= loop.strides[i][std::size_t(d)] * loop.sizes[std::size_t(d)];
      at[std::size_t(d)] = 0;
    }
    if (d < 0) return;
  }
}

/// `count` lanes from i on of an operand at any stride. Whole vectors are read of what lies together.
HWY_INLINE V fetch(const float* p, std::int64_t i, std::int64_t stride, std::int64_t count) {
  if (HWY_LIKELY(stride == 1)) return load(p + i);
  if (stride == 0) return set(*p);
  alignas(64) float lanes[kLanes] = {};
  for (std::int64_t k = 0; k < std::min(kStep, count); ++k) lanes[k] = p[(i + k) * stride];
  return load(lanes);
}

HWY_INLINE void put(V x, float* p, std::int64_t i, std::int64_t stride, std::int64_t count) {
  if (HWY_LIKELY(stride == 1)) return store(x, p + i, std::size_t(count));
  alignas(64) float lanes[kLanes];
  hn::StoreU(x, F(), lanes);
  for (std::int64_t k = 0; k < std::min(kStep, count); ++k) p[(i + k) * stride] = lanes[k];
}

/// out = of(a, b, c); operands that `of` does not use are not read.
template <int kOperands, class Of>
void map(const Loop& loop, float* out, const float* a, const float* b, const float* c, const Of& of) {
  const auto inner = std::size_t(loop.dims - 1);
  const auto size = loop.sizes[inner];
  for_rows(loop, [&](const std::array<std::int64_t, 4>& at) {
    for (std::int64_t i = 0; i < size; i += kStep) {
      const auto rest = size - i;
      const V x = fetch(a + at[1], i, loop.strides[1][inner], rest);
      const V y = kOperands > 1 ? fetch(b + at[2], i, loop.strides[2][inner], rest) : x;
      const V z = kOperands > 2 ? fetch(c + at[3], i, loop.strides[3][inner], rest) : x;
      put(of(x, y, z), out + at[0], i, loop.strides[0][inner], rest);
    }
  });
}

/// Columns that lie apart become one of pairs or threes: [n, 2] as a channel shuffle of two groups does, [n, 3] as colour
/// images do when their channels are brought together.
bool interleave(const Loop& loop, float* out, const float* a) {
  const auto inner = std::size_t(loop.dims - 1);
  const auto width = loop.sizes[inner];
  if (loop.dims < 2 || (width != 2 && width != 3) || loop.strides[0][inner] != 1 || loop.strides[0][inner - 1] != width || loop.strides[1][inner - 1] != 1)
    return false;
  Loop outer = loop;
  --outer.dims;
  const auto size = loop.sizes[inner - 1], apart = loop.strides[1][inner];
  for_rows(outer, [&](const std::array<std::int64_t, 4>& at) {
    const float* from = a + at[1];
    float* to = out + at[0];
    std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; i + kStep <= size; i += kStep) {
      if (width == 2) hn::StoreInterleaved2(load(from + i), load(from + apart + i), F(), to + 2 * i);
      else hn::StoreInterleaved3(load(from + i), load(from + apart + i), load(from + 2 * apart + i), F(), to + 3 * i);
    }
#endif
    for (; i < size; ++i)
      for (std::int64_t k = 0; k < width; ++k) to[width * i + k] = from[k * apart + i];
  });
  return true;
}

void elementwise(const Loop& loop, const Operation& o, float* out, const float* a, const float* b, const float* c) {
  const V number = set(o.number);
  switch (o.what) {
    case Elementwise::kActivate:
      if (o.activation == Activation::kNone && interleave(loop, out, a)) return;
      return map<1>(loop, out, a, b, c, [&](V x, V, V) { return activate(o.activation, x, o.slope); });
    case Elementwise::kAdd: return map<2>(loop, out, a, b, c, [&](V x, V y, V) { return hn::MulAdd(number, y, x); });
    case Elementwise::kMul: return map<2>(loop, out, a, b, c, [&](V x, V y, V) { return hn::Mul(x, y); });
    case Elementwise::kDiv: return map<2>(loop, out, a, b, c, [&](V x, V y, V) { return hn::Div(x, y); });
    case Elementwise::kLerp: return map<3>(loop, out, a, b, c, [&](V x, V y, V z) { return hn::MulAdd(z, hn::Sub(y, x), x); });
    case Elementwise::kAddNumber: return map<1>(loop, out, a, b, c, [&](V x, V, V) { return hn::Add(x, number); });
    case Elementwise::kMulNumber: return map<1>(loop, out, a, b, c, [&](V x, V, V) { return hn::Mul(x, number); });
    case Elementwise::kSquare: return map<1>(loop, out, a, b, c, [&](V x, V, V) { return hn::Mul(x, x); });
    case Elementwise::kFakeQuantise: {
      const V inverse = set(o.inverse_scale), low = set(float(-o.zero)), high = set(float(255 - o.zero));
      return map<1>(loop, out, a, b, c, [&](V x, V, V) { return hn::Mul(hn::Round(hn::Min(high, hn::Max(low, hn::Mul(x, inverse)))), number); });
    }
  }
}

#if HWY_TARGET != HWY_SCALAR
/// The grid of a colour image whose channels lie apart: [n, 3] bytes.
bool quantise_colours(const Loop& loop, float inverse_scale, std::int32_t zero, std::uint8_t* out, const float* a) {
  const auto inner = std::size_t(loop.dims - 1);
  if (loop.dims < 2 || loop.sizes[inner] != 3 || loop.strides[0][inner] != 1 || loop.strides[0][inner - 1] != 3 || loop.strides[1][inner - 1] != 1) return false;
  Loop outer = loop;
  --outer.dims;
  const auto size = loop.sizes[inner - 1], apart = loop.strides[1][inner];
  const hn::CappedTag<std::uint8_t, kLanes> u8;
  for_rows(outer, [&](const std::array<std::int64_t, 4>& at) {
    for (std::int64_t i = 0; i < size; i += kStep) {
      alignas(64) std::uint8_t colours[3][kLanes], mixed[3 * kLanes];
      const float* from = a + at[1] + i;
#if HWY_TARGET <= HWY_AVX3
      const __m512i bytes_of_all = grids_of(inverse_scale, zero, load(from), load(from + apart), load(from + 2 * apart), load(from));
      std::memcpy(colours, &bytes_of_all, sizeof colours);
#else
      for (int k = 0; k < 3; ++k) store_grid(load(from + k * apart), inverse_scale, zero, colours[k], kLanes);
#endif
      hn::StoreInterleaved3(hn::Load(u8, colours[0]), hn::Load(u8, colours[1]), hn::Load(u8, colours[2]), u8, mixed);
      std::memcpy(out + at[0] + 3 * i, mixed, std::size_t(3 * std::min(kStep, size - i)));
    }
  });
  return true;
}
#endif

void quantise(const Loop& given, float inverse_scale, std::int32_t zero, std::uint8_t* out, const float* a) {
#if HWY_TARGET != HWY_SCALAR
  if (quantise_colours(given, inverse_scale, zero, out, a)) return;
#endif
  // Vectors go along what lies together in the input.
  Loop loop = given;
  const auto swapped = std::size_t(std::max(0, loop.dims - 2));
  if (loop.dims > 1 && loop.strides[1][swapped] == 1 && loop.strides[1][swapped + 1] != 1) {
    std::swap(loop.sizes[swapped], loop.sizes[swapped + 1]);
    for (auto& strides : loop.strides) std::swap(strides[swapped], strides[swapped + 1]);
  }
  const auto inner = std::size_t(loop.dims - 1);
  const auto size = loop.sizes[inner];
  for_rows(loop, [&](const std::array<std::int64_t, 4>& at) {
    for (std::int64_t i = 0; i < size; i += kStep) {
      alignas(16) std::uint8_t bytes[kLanes];
      const V x = fetch(a + at[1], i, loop.strides[1][inner], size - i);
      std::uint8_t* to = out + at[0] + i * loop.strides[0][inner];
      if (loop.strides[0][inner] == 1) {
        store_grid(x, inverse_scale, zero, to, std::size_t(size - i));
        continue;
      }
      store_grid(x, inverse_scale, zero, bytes, kLanes);
      for (std::int64_t k = 0; k < std::min(kStep, size - i); ++k) to[k * loop.strides[0][inner]] = bytes[k];
    }
  });
}

HWY_INLINE float sum_of(V sums) { return hn::GetLane(hn::SumOfLanes(F(), sums)); }

/// Σ of(x) over values that lie together.
template <class Of>
HWY_INLINE float sum(const float* a, std::int64_t length, const Of& of) {
  V sums = hn::Zero(F());
  std::int64_t i = 0;
  for (; i + kStep <= length; i += kStep) sums = hn::Add(sums, of(load(a + i)));
  if (i < length) sums = hn::Add(sums, hn::IfThenElseZero(hn::FirstN(F(), std::size_t(length - i)), of(load(a + i))));
  return sum_of(sums);
}

void accumulate(const Loop& loop, float* out, const float* a) {
  const auto inner = std::size_t(loop.dims - 1);
  const auto size = loop.sizes[inner], to = loop.strides[0][inner], from = loop.strides[1][inner];
  for_rows(loop, [&](const std::array<std::int64_t, 4>& at) {
    if (to == 0 && from == 1) {
      out[at[0]] += sum(a + at[1], size, [](V x) { return x; });
    } else if (to == 1) {
      for (std::int64_t i = 0; i < size; i += kStep)
        put(hn::Add(load(out + at[0] + i), fetch(a + at[1], i, from, size - i)), out + at[0], i, 1, size - i);
    } else {
      for (std::int64_t i = 0; i < size; ++i) out[at[0] + i * to] += a[at[1] + i * from];
    }
  });
}

void softmax(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride) {
  for (std::int64_t row = 0; row < count; ++row, out += out_stride, a += a_stride) {
    V highest = set(a[0]);
    std::int64_t i = 0;
    for (; i + kStep <= length; i += kStep) highest = hn::Max(highest, load(a + i));
    if (i < length) highest = hn::Max(highest, hn::IfThenElse(hn::FirstN(F(), std::size_t(length - i)), load(a + i), highest));
    highest = hn::MaxOfLanes(F(), highest);
    V sums = hn::Zero(F());
    for (i = 0; i < length; i += kStep) {
      const auto rest = std::size_t(length - i);
      const V e = math::exp(hn::Sub(load(a + i), highest));
      sums = hn::Add(sums, rest >= kLanes ? e : hn::IfThenElseZero(hn::FirstN(F(), rest), e));
      store(e, out + i, rest);
    }
    const V inverse = hn::Div(set(1.f), hn::SumOfLanes(F(), sums));
    for (i = 0; i < length; i += kStep) store(hn::Mul(load(out + i), inverse), out + i, std::size_t(length - i));
  }
}

void layer_norm(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride,
                const float* scale, const float* shift, float eps) {
  for (std::int64_t row = 0; row < count; ++row, out += out_stride, a += a_stride) {
    const float mean = sum(a, length, [](V x) { return x; }) / float(length);
    const V centre = set(mean);
    const float variance = sum(a, length, [&](V x) { return hn::Mul(hn::Sub(x, centre), hn::Sub(x, centre)); }) / float(length);
    const V inverse = set(1 / std::sqrt(variance + eps));
    for (std::int64_t i = 0; i < length; i += kStep) {
      V y = hn::Mul(hn::Sub(load(a + i), centre), inverse);
      const auto rest = std::size_t(length - i);
      if (scale) y = hn::MulAdd(y, math::load(scale + i, rest), math::load(shift + i, rest));
      store(y, out + i, rest);
    }
  }
}

void group_norm(float* out, const float* a, std::int64_t pixels, std::int64_t channels, std::int64_t groups, std::int64_t out_stride,
                std::int64_t a_stride, const float* scale, const float* shift, float eps) {
  const auto width = channels / groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    const float* in = a + g * width;
    double total = 0, squares = 0;
    for (std::int64_t p = 0; p < pixels; ++p) total += sum(in + p * a_stride, width, [](V x) { return x; });
    const float mean = float(total / double(pixels * width));
    const V centre = set(mean);
    for (std::int64_t p = 0; p < pixels; ++p)
      squares += sum(in + p * a_stride, width, [&](V x) { return hn::Mul(hn::Sub(x, centre), hn::Sub(x, centre)); });
    const V inverse = set(1 / std::sqrt(float(squares / double(pixels * width)) + eps));
    for (std::int64_t i = 0; i < width; i += kStep) {
      const auto rest = std::size_t(width - i);
      const V factor = hn::Mul(inverse, scale ? math::load(scale + g * width + i, rest) : set(1.f));
      const V offset = shift ? math::load(shift + g * width + i, rest) : hn::Zero(F());
      for (std::int64_t p = 0; p < pixels; ++p)
        store(hn::MulAdd(hn::Sub(load(in + p * a_stride + i), centre), factor, offset), out + p * out_stride + g * width + i, rest);
    }
  }
}

}  // namespace
}  // namespace preceptor::deploy::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace preceptor::deploy::kernels {
namespace {
HWY_EXPORT(elementwise);
HWY_EXPORT(quantise);
HWY_EXPORT(accumulate);
HWY_EXPORT(softmax);
HWY_EXPORT(layer_norm);
HWY_EXPORT(group_norm);
}  // namespace

void elementwise(const Loop& loop, const Operation& operation, float* out, const float* a, const float* b, const float* c) {
  HWY_DYNAMIC_DISPATCH(elementwise)(loop, operation, out, a, b, c);
}
void quantise(const Loop& loop, float inverse_scale, std::int32_t zero, std::uint8_t* out, const float* a) {
  HWY_DYNAMIC_DISPATCH(quantise)(loop, inverse_scale, zero, out, a);
}
void accumulate(const Loop& loop, float* out, const float* a) { HWY_DYNAMIC_DISPATCH(accumulate)(loop, out, a); }
void softmax(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride) {
  HWY_DYNAMIC_DISPATCH(softmax)(out, a, count, length, out_stride, a_stride);
}
void layer_norm(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride,
                const float* scale, const float* shift, float eps) {
  HWY_DYNAMIC_DISPATCH(layer_norm)(out, a, count, length, out_stride, a_stride, scale, shift, eps);
}
void group_norm(float* out, const float* a, std::int64_t pixels, std::int64_t channels, std::int64_t groups, std::int64_t out_stride,
                std::int64_t a_stride, const float* scale, const float* shift, float eps) {
  HWY_DYNAMIC_DISPATCH(group_norm)(out, a, pixels, channels, groups, out_stride, a_stride, scale, shift, eps);
}

}  // namespace preceptor::deploy::kernels
#endif
