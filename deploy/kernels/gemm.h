#pragma once
#include <hwy/aligned_allocator.h>

#include <cstdint>
#include <limits>
#include <span>

#include "deploy/kernels/epilogue.h"

/// Convolutions, linear layers and matrix products in float32, as one product of matrices whose left rows are found
/// through a table of offsets (Dukhan 2019, arXiv:1907.02129): no im2col, and padding costs no branch.
namespace preceptor::deploy::kernels {

inline constexpr std::int64_t kPanel = 16;  ///< columns that lie together, whatever the width of a vector

constexpr std::int64_t panels(std::int64_t columns) { return (columns + kPanel - 1) / kPanel; }

/// The right matrix [taps · depth, columns] as [panels][taps · depth][kPanel], and a bias for each column; padded with zeros.
struct PackedMatrix {
  std::int64_t taps = 1, depth = 0, columns = 0;
  hwy::AlignedFreeUniquePtr<float[]> values, bias;
  std::size_t bytes() const { return std::size_t(panels(columns) * kPanel * (taps * depth + 1)) * sizeof(float); }
};

/// Element (tap, k, column) is at from[tap · tap_stride + k · depth_stride + column · column_stride]. An empty bias: zeros.
PackedMatrix pack(const float* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
                  std::int64_t depth_stride, std::int64_t column_stride, std::span<const float> bias);
/// The same into memory that is there already, of the size of PackedMatrix::values.
void pack_into(float* to, const float* from, std::int64_t taps, std::int64_t depth, std::int64_t columns, std::int64_t tap_stride,
               std::int64_t depth_stride, std::int64_t column_stride);

inline constexpr std::int32_t kOutside = std::numeric_limits<std::int32_t>::min();  ///< an offset into the padding

/// The left matrix: row m's tap t is `depth` values from base + offsets[m · taps + t], or from `outside`.
template <class T>
struct TapRows {
  const T* base;
  const std::int32_t* offsets;
  std::int64_t count;
  const T* outside;
};

void gemm(const float* values, const float* bias, std::int64_t taps, std::int64_t depth, std::int64_t columns, const TapRows<float>& rows,
          const Epilogue& epilogue);

}  // namespace preceptor::deploy::kernels
