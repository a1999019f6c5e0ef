#pragma once
#include <array>
#include <cstdint>

#include "deploy/kernels/epilogue.h"

/// Operators that go through tensors element by element or row by row, whatever their strides.
namespace preceptor::deploy::kernels {

inline constexpr int kMaxDims = 8;

/// Nested loops, the innermost last; strides in elements for the result and up to three operands (0: broadcast).
struct Loop {
  int dims = 0;
  std::array<std::int64_t, kMaxDims> sizes{};
  std::array<std::array<std::int64_t, kMaxDims>, 4> strides{};
};

enum class Elementwise : std::uint8_t {
  kActivate,    ///< activation(a)
  kAdd,         ///< a + number · b
  kMul,         ///< a · b
  kDiv,         ///< a / b
  kLerp,        ///< a + c · (b − a)
  kAddNumber,   ///< a + number
  kMulNumber,   ///< a · number
  kSquare,      ///< a²
  kFakeQuantise ///< (grid step of a − zero) · number; scale and zero as in Epilogue
};

struct Operation {
  Elementwise what = Elementwise::kActivate;
  Activation activation = Activation::kNone;
  float number = 1, slope = 0, inverse_scale = 1;
  std::int32_t zero = 0;
};

void elementwise(const Loop& loop, const Operation& operation, float* out, const float* a, const float* b, const float* c);
/// float32 → grid, as Epilogue's.
void quantise(const Loop& loop, float inverse_scale, std::int32_t zero, std::uint8_t* out, const float* a);
/// out += a, where out's strides are 0 along what is summed.
void accumulate(const Loop& loop, float* out, const float* a);

/// `count` rows of `length` values that lie together, at stride.
void softmax(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride);
/// (x − mean) / sqrt(variance + eps) · scale + shift, row by row.
void layer_norm(float* out, const float* a, std::int64_t count, std::int64_t length, std::int64_t out_stride, std::int64_t a_stride,
                const float* scale, const float* shift, float eps);
/// The same over each group of channels of one image of `pixels` rows of channels.
void group_norm(float* out, const float* a, std::int64_t pixels, std::int64_t channels, std::int64_t groups, std::int64_t out_stride,
                std::int64_t a_stride, const float* scale, const float* shift, float eps);

}  // namespace preceptor::deploy::kernels
