#pragma once
#include <cmath>
#include <memory>

#include "privacy/differential_privacy/accountant.h"
#include "privacy/differential_privacy/sampler.h"

namespace preceptor::privacy {

/// One node's share of the noise on a sum of integer vectors modulo 2^r, added before it is masked.
/// Sized for the fewest honest nodes that a sum can have: each adds variance σ²/honest, so that
/// what they add together has σ² even when every other node adds none. More nodes only add more
/// noise. Immutable; shared by threads.
class RingNoise {
 public:
  /// total_deviation: σ wanted in the sum, in integer steps. noise: an integer one. kInvalid where
  /// its sampler cannot.
  static Result<RingNoise> create(Noise noise, double total_deviation, std::uint32_t honest);

  double share() const {
    return std::sqrt(sampler_->variance());
  }  ///< deviation of one node's noise, at least σ/√honest
  std::uint32_t honest() const { return honest_; }
  /// Of the noise in a sum of so many nodes, for the inequality of the modulus.
  double deviation(std::uint32_t nodes) const { return share() * std::sqrt(double(nodes)); }
  /// What an accountant is to know of a release with these sensitivities, in integer steps.
  Mechanism mechanism(double l2, double l1, double dimension, double sampling_rate) const;

  /// words[i] += noise, modulo 2^r, 2 ≤ r ≤ 32. Error: the source's; words are then worthless.
  Result<void> add(std::span<std::uint32_t> words, int ring_bits, RandomSource& source) const;

 private:
  RingNoise(Noise noise, std::uint32_t honest, std::unique_ptr<IntegerSampler> sampler)
      : noise_(noise), honest_(honest), sampler_(std::move(sampler)) {}
  Noise noise_;
  std::uint32_t honest_;
  std::shared_ptr<const IntegerSampler> sampler_;
};

/// The largest sum of `nodes` vectors whose elements are within ±weight·limit, with noise of this
/// total deviation: nodes·weight·limit + 6 σ. A sum wraps (2e-9 an element) unless 2^(r-1) is above
/// it.
double ring_room(double nodes, double weight, double limit, double deviation);
/// The smallest r with 2^(r-1) > room, or kInvalid when it is above 32.
Result<int> ring_bits_for(double room);
/// kInvalid, with the numbers, unless 2^(r-1) > room.
Result<void> check_ring(int ring_bits, double room);

}  // namespace preceptor::privacy
