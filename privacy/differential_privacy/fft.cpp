#include "privacy/differential_privacy/fft.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <stdexcept>

namespace preceptor::privacy {

Fft::Fft(std::size_t length) : twiddles_(length / 2) {
  if (length < 2 || !std::has_single_bit(length)) throw std::invalid_argument("the length is a power of two");
  for (std::size_t k = 0; k < twiddles_.size(); ++k) {
    const double angle = -2 * std::numbers::pi * double(k) / double(length);
    twiddles_[k] = {std::cos(angle), std::sin(angle)};
  }
}

void Fft::run(std::vector<std::complex<double>>& values) const {
  const std::size_t n = values.size();
  for (std::size_t i = 1, j = 0; i < n; ++i) {  // bit reversal
    std::size_t bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(values[i], values[j]);
  }
  // Products by hand: std::complex's multiplication tests for NaN.
  for (std::size_t half = 1; half < n; half *= 2) {
    const std::size_t stride = n / (2 * half);
    for (std::size_t start = 0; start < n; start += 2 * half)
      for (std::size_t k = 0; k < half; ++k) {
        const auto w = twiddles_[k * stride];
        auto& a = values[start + k];
        auto& b = values[start + k + half];
        const std::complex<double> turned{b.real() * w.real() - b.imag() * w.imag(), b.real() * w.imag() + b.imag() * w.real()};
        b = a - turned;
        a += turned;
      }
  }
}

void Fft::forward(std::vector<std::complex<double>>& values) const {
  if (values.size() != 2 * twiddles_.size()) throw std::invalid_argument("values of another length");
  run(values);
}

void Fft::inverse(std::vector<std::complex<double>>& values) const {
  forward(values);
  std::reverse(values.begin() + 1, values.end());
  const double scale = 1.0 / double(values.size());
  for (auto& v : values) v *= scale;
}

}  // namespace preceptor::privacy
