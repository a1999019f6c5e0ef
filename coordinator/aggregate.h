#pragma once
#include "compression/update/update.h"

namespace preceptor::coordinator {

/// The sample-weighted sum of updates (FedAvg, McMahan 2016, arXiv:1602.05629) in fixed point: every value
/// becomes an integer multiple of 2^-28, is multiplied by its weight and added in Z_2^64. Integer addition is
/// associative, so the result does not depend on the order of arrival, on threads or on the transport.
/// Values are at most 2^10 in magnitude and weights add up to at most 2^24, so nothing can overflow.
class Accumulator {
 public:
  static constexpr double kScale = double(1 << 28);
  static constexpr float kMaxValue = 1024;
  static constexpr std::uint64_t kMaxWeight = 1 << 24;

  explicit Accumulator(std::size_t parameters) : sums_(parameters) {}

  /// Decodes an update twice: once to judge it, once to fold it, tile by tile. Either all of it is in the sum
  /// afterwards or none. Error: kRefused (a value is not finite or too large, the norm is above max_norm, the
  /// weights overflow) or kCorrupt.
  Result<void> fold(const compression::UpdateCodec& codec, std::span<const std::byte> update, std::uint64_t weight, double max_norm);

  /// Once a round, before apply: makes the update out of what a linear transform (a count sketch) left to be added
  /// up coded; nothing to do without one. Error: kRefused or kInvalid, and the round has no update.
  Result<void> settle(const compression::UpdateCodec& codec);

  std::uint64_t weight() const { return weight_; }
  /// model[i] += rate · sum[i] / weight. Needs weight() > 0.
  void apply(std::span<float> model, double rate) const;
  void clear();  ///< the sum, not the transform's memory

 private:
  std::vector<std::int64_t> sums_;  ///< of the parameters, and behind them what a linear transform adds
  std::uint64_t weight_ = 0;
  compression::Transform::Memory memory_;  ///< of that transform: momentum and error feedback, from round to round
};

}  // namespace preceptor::coordinator
