#pragma once
#include <cstdint>

namespace preceptor::models::kernels {

inline constexpr std::int64_t kPad = 16;    ///< rows that the kernels own have room for whole vectors of any width up to this
inline constexpr std::int64_t kChunk = 64;  ///< steps between two kept states

constexpr std::int64_t padded(std::int64_t channels) { return (channels + kPad - 1) / kPad * kPad; }

/// [K, B, L, row] with any strides, in floats; a row is contiguous.
template <class T>
struct Rows {
  T* data;
  std::int64_t k, b, l;
  T* at(std::int64_t i, std::int64_t j, std::int64_t row) const { return data + i * k + j * b + row * l; }
};

/// One selective scan (kernels.h has the formula): shapes and what both passes read. P = padded(D); padding is 0.
struct Scan {
  std::int64_t orders, batch, length, channels, states;  ///< K, B, L, D, N
  const float* u;                                        ///< [B, L, D]
  Rows<const float> delta, b, c;                         ///< rows of D, N, N
  const float* a;                                        ///< [K, N, P], times log2 e
  const float *skip, *delta_bias;                        ///< [K, P]
  const std::int32_t* order;                             ///< [K, L]
  std::int64_t chunks() const { return (length + kChunk - 1) / kChunk; }
};

/// Sample `b`, channels first … last − 1 (first a multiple of kPad): y [B, L, D]. `kept` [B, K, chunks + 1, N, P],
/// if not null, gets h before each chunk for the backward pass. Results do not depend on how channels are divided.
void selective_scan_forward(const Scan& scan, std::int64_t b, std::int64_t first, std::int64_t last, float* y, float* kept);

/// Where the gradients go, with sums over samples left to the caller.
struct ScanGradients {
  float* u;                  ///< [B, L, D]
  float* delta;              ///< [K, B, L, D]
  float *b, *c;              ///< [K, B, L, N]
  float* a;                  ///< [B, K, N, P], added to; by a itself, without log2 e
  float *skip, *delta_bias;  ///< [B, K, P], added to
};

/// Sample `b`, all channels; grad [B, L, D] is that of y, `kept` as the forward pass left it.
void selective_scan_backward(const Scan& scan, std::int64_t b, const float* grad, const float* kept, const ScanGradients& out);

/// Highway's name of the instruction set that the calls above use.
const char* simd_target();

}  // namespace preceptor::models::kernels
