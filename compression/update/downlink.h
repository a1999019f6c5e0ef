#pragma once
#include "compression/update/update.h"

namespace preceptor::compression {

/// How the new global model reaches nodes that have an older one.
struct DownlinkOptions {
  /// full: all of it, every round; delta: what changed, quantised; sum: the opened sum of the secure profile, from
  /// which each node makes the model itself; auto: the coordinator's choice, which a plan does not leave open.
  std::string mode = "auto";
  int bits = 8;     ///< of a weight's change in delta: 4 or 8; statistics travel as fp32
  double rate = 1;  ///< of sum: model += rate · mean; the coordinator fills in federation.learning_rate
  template <class V>
  void visit(V& v) {
    v("mode", mode, OneOf{"auto", "full", "delta", "sum"});
    v("bits", bits, Range{4, 8});  // 2 stochastic bits lose more than they carry: error feedback would grow without end
    v("rate", rate, Range{0.001, 10});
  }
};

/// Leads from one global model to the next. Both sides of the wire run the same additions, so that a
/// node's model has the hash of the coordinator's to the bit, whatever their CPUs. Immutable; shared by threads.
class ModelStep {
 public:
  virtual ~ModelStep() = default;
  /// model [size()], before the round → after it. Error: kCorrupt, kRefused; the model is then half-way and of no use.
  virtual Result<void> apply(std::span<const std::byte> step, std::uint32_t round, std::span<float> model) const = 0;
  virtual std::size_t size() const = 0;  ///< floats of the model
};

/// Codes the change from one global model to the next, quantised. Frozen parameters never travel.
class ModelDelta : public ModelStep {
 public:
  static Result<ModelDelta> create(const DownlinkOptions& options, const ParameterSpace& space);

  /// from, to: models [space.size()]. `seed` draws the stochastic rounding.
  Result<Bytes> encode(std::span<const float> from, std::span<const float> to,
                       std::uint64_t seed) const;
  /// model += delta, in any round; variances that fell below zero are repaired.
  Result<void> apply(std::span<const std::byte> delta, std::uint32_t round, std::span<float> model) const override;
  std::size_t size() const override { return space_.size(); }

 private:
  ModelDelta(UpdateCodec codec, const ParameterSpace& space)
      : codec_(std::move(codec)), space_(space) {}
  UpdateCodec codec_;
  ParameterSpace space_;
};

}  // namespace preceptor::compression
