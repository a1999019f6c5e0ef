#pragma once
#include <cstdint>

namespace preceptor::deploy::kernels {

enum class Activation : std::uint8_t { kNone, kRelu, kRelu6, kSilu, kSigmoid, kHardswish, kHardsigmoid, kGelu, kLeakyRelu };

/// What becomes of a row of sums: y = after(before(sum) + residual), written as float32, on a grid of 256 steps, or as both.
/// Pointers stand at row 0; strides are in elements. Null: not there.
struct Epilogue {
  Activation before = Activation::kNone, after = Activation::kNone;
  float slope = 0;  ///< of leaky ReLU
  const float* residual = nullptr;
  std::int64_t residual_stride = 0;
  float* out = nullptr;
  std::int64_t out_stride = 0;
  std::uint8_t* grid = nullptr;  ///< clamp(round(y · inverse_scale) + zero, 0, 255); round: to nearest, halves to even
  std::int64_t grid_stride = 0;
  float inverse_scale = 1;
  std::int32_t zero = 0;
};

}  // namespace preceptor::deploy::kernels
