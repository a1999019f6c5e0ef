#pragma once
#include "compression/update/downlink.h"
#include "compression/update/ring_sum.h"

namespace preceptor::compression {

/// The next global model from the sum that the coordinator opened and published (RingSum::publish): a node that
/// makes it itself need not believe what it is told. All that is left to lie about is the sum, and that within what
/// honest, clipped updates can add up to.
class SumStep : public ModelStep {
 public:
  /// seed: the plan's. rate: of the server.
  SumStep(const RingCodec& codec, std::uint64_t seed, double rate, const ParameterSpace& space)
      : codec_(codec), seed_(seed), rate_(rate), space_(space) {}

  /// model += rate · mean; variances that fell below zero are repaired.
  Result<void> apply(std::span<const std::byte> published, std::uint32_t round, std::span<float> model) const override;
  std::size_t size() const override { return space_.size(); }
  std::size_t bytes() const { return RingSum::published_size(codec_); }

 private:
  RingCodec codec_;
  std::uint64_t seed_;
  double rate_;
  ParameterSpace space_;
};

}  // namespace preceptor::compression
