#pragma once
#include "compression/update/update.h"

namespace preceptor::compression {

/// How the new global model reaches nodes that have an older one.
struct DownlinkOptions {
  std::string mode = "full";  ///< full: all of it, every round; delta: what changed, quantised
  int bits = 8;               ///< of a weight's change in delta: 4 or 8; statistics travel as fp32
  template <class V>
  void visit(V& v) {
    v("mode", mode, OneOf{"full", "delta"});
    v("bits", bits, Range{4, 8});  // 2 stochastic bits lose more than they carry: error feedback would grow without end
  }
};

/// Codes the change from one global model to the next, and applies it: both sides of the wire run
/// the same additions, so that a node's model has the hash of the coordinator's to the bit. Frozen
/// parameters never travel. Immutable; shared by threads.
class ModelDelta {
 public:
  static Result<ModelDelta> create(const DownlinkOptions& options, const ParameterSpace& space);

  /// from, to: models [space.size()]. `seed` draws the stochastic rounding.
  Result<Bytes> encode(std::span<const float> from, std::span<const float> to,
                       std::uint64_t seed) const;
  /// model += delta; variances that fell below zero are repaired. Error: kCorrupt; the model is then
  /// half-way and of no use.
  Result<void> apply(std::span<const std::byte> delta, std::span<float> model) const;
  std::size_t size() const { return space_.size(); }  ///< floats of the model

 private:
  ModelDelta(UpdateCodec codec, const ParameterSpace& space)
      : codec_(std::move(codec)), space_(space) {}
  UpdateCodec codec_;
  ParameterSpace space_;
};

}  // namespace preceptor::compression
