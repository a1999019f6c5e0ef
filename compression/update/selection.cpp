#include "compression/update/selection.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

/// A magnitude that likely a few more than k of the values reach: the one of rank `margin` above k
/// among values taken at equal distances. 0, which all reach, where that rank is past the end.
float guess_threshold(std::span<const float> values, std::size_t k, double margin) {
  constexpr std::size_t kSample = 2048;
  const auto count = std::min(values.size(), kSample);
  const auto share = double(k) * double(count) / double(values.size());
  const auto rank = std::size_t(share + margin * (std::sqrt(share) + 1));
  if (rank >= count) return 0;
  std::array<float, kSample> sample;
  for (std::size_t i = 0; i < count; ++i)
    sample[i] = std::abs(values[i * values.size() / count]);
  const auto wanted = sample.begin() + std::ptrdiff_t(rank);
  std::nth_element(sample.begin(), wanted, sample.begin() + std::ptrdiff_t(count), std::greater{});
  return *wanted;
}

}  // namespace

std::vector<std::uint32_t> largest_places(std::span<const float> values, std::size_t k) {
  std::vector<std::uint32_t> places;
  for (double margin = 4; places.size() < k; margin *= 4)
    places = places_of_at_least(values, guess_threshold(values, k, margin));
  if (places.size() == k) return places;
  std::vector<float> magnitudes(places.size());
  std::ranges::transform(places, magnitudes.begin(), [&](auto i) { return std::abs(values[i]); });
  const auto last = magnitudes.begin() + std::ptrdiff_t(k - 1);
  std::nth_element(magnitudes.begin(), last, magnitudes.end(), std::greater{});
  const auto threshold = *last;
  auto equals = k - std::size_t(std::count_if(magnitudes.begin(), last,
                                              [&](float m) { return m > threshold; }));
  std::erase_if(places, [&](auto i) {
    const auto m = std::abs(values[i]);
    if (m != threshold) return m < threshold;
    return equals == 0 || equals-- == 0;
  });
  return places;
}

}  // namespace preceptor::compression
