#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace preceptor::compression {

/// Places of the k largest magnitudes, the earlier one of equals, in order; exact. k <= x.size() <
/// 2^32. One pass over the values at the speed of memory, and work in proportion to k: a sample
/// guesses a threshold that a few more than k reach. The guess decides how many candidates that
/// pass leaves, never which of them stay.
std::vector<std::uint32_t> largest_places(std::span<const float> x, std::size_t k);

}  // namespace preceptor::compression
