#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace preceptor::test {

/// Chi-square of bytes against uniform, 255 degrees of freedom.
inline double chi_square(std::span<const std::uint32_t> words) {
  std::array<double, 256> counts{};
  for (const auto byte : std::as_bytes(words)) ++counts[std::to_integer<std::size_t>(byte)];
  const double expected = double(words.size_bytes()) / 256;
  double chi = 0;
  for (const double count : counts) chi += (count - expected) * (count - expected) / expected;
  return chi;
}

}  // namespace preceptor::test
