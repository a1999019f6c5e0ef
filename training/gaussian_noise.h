#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/random.h"
#include "common/result.h"

namespace preceptor::training {

/// Where the randomness that privacy rests on comes from. Not thread-safe.
class PrivacyRandomness {
 public:
  static PrivacyRandomness system() { return PrivacyRandomness(std::nullopt); }  ///< OpenSSL's RAND_priv_bytes: secret
  /// For simulations: whoever knows the seed can take the noise off again.
  static PrivacyRandomness seeded(RandomStream stream) { return PrivacyRandomness(stream); }

  /// Error: kUnavailable when the generator of the system fails.
  Result<void> fill(std::span<std::uint64_t> words);

 private:
  explicit PrivacyRandomness(std::optional<RandomStream> stream) : stream_(std::move(stream)) {}
  std::optional<RandomStream> stream_;
};

/// The noise's grid is this share of its deviation.
inline constexpr double kNoiseGrid = 0x1p-24;

/// Adds N(0, deviation²) to each: Box-Muller in float64 from 52-bit uniforms, tails up to 8.5 deviations. Sum and noise are
/// both rounded to multiples of kNoiseGrid · deviation before they are added, so the low bits of the result say nothing of
/// the sum (Mironov 2012, doi:10.1145/2382196.2382264); that adds at most √n · kNoiseGrid · deviation to the distance of two
/// sums of n values. Error: as fill; deviation 0 adds nothing.
Result<void> add_gaussian(std::span<float> sum, double deviation, PrivacyRandomness& randomness);

/// Indices below `count`, each in with probability `rate` by itself (Poisson sampling), ascending.
Result<std::vector<std::size_t>> poisson_sample(std::size_t count, double rate, PrivacyRandomness& randomness);

}  // namespace preceptor::training
