#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace preceptor::compression {

// One pass over floats each, with the widest vectors that the CPU has, at the speed of memory. The
// results are the same to the last bit on every instruction set: sums go in sixteen lanes, nothing
// is fused. Thread-safe.

/// No NaN, no infinity.
bool all_finite(std::span<const float> x);

/// max |x[i]|; 0 of none. x: finite.
float largest_magnitude(std::span<const float> x);

/// Both at once: largest_magnitude and sum_of_squares.
struct Peak {
  float largest;
  double squares;
};
Peak peak(std::span<const float> x);

double sum_of_squares(std::span<const float> x);     ///< |x[i]| < 2^60, or it overflows
double sum_of_magnitudes(std::span<const float> x);  ///< in float for up to 65536 values a lane

/// y[i] += x[i]; y[i] -= x[i]; y[i] = min(max(y[i] * factor, -FLT_MAX), FLT_MAX).
void add(std::span<float> y, std::span<const float> x);
void subtract(std::span<float> y, std::span<const float> x);
void multiply(std::span<float> y, float factor);
/// y[i] = factor * y[i] + x[i], rounded twice.
void multiply_add(std::span<float> y, float factor, std::span<const float> x);

/// y[i] = y[i] + factor * x[i], rounded twice.
void add_scaled(std::span<float> y, float factor, std::span<const float> x);
double dot(std::span<const float> x, std::span<const float> y);

/// Places i with |x[i]| >= threshold >= 0, in order. x.size() < 2^32.
std::vector<std::uint32_t> places_of_at_least(std::span<const float> x, float threshold);

}  // namespace preceptor::compression
