#pragma once
#include "coordinator/round_sum.h"
#include "privacy/secure_aggregation/identity.h"

namespace preceptor::coordinator {

/// The secure profile's sum under masks: whatever a node sends is words, so only the whole sum can be judged,
/// once Aggregation has taken the masks off.
class MaskedSum : public SecureSum {
 public:
  /// context: of any round of the job. codec and roster outlive the sum.
  MaskedSum(const compression::RingCodec& codec, std::uint64_t seed, privacy::SessionContext context, const privacy::Roster& roster,
            std::chrono::seconds step_deadline)
      : SecureSum(codec, seed), masking_{std::move(context), &roster, step_deadline} {}
  Result<void> fold(std::span<const std::byte> update, std::uint64_t announced, double max_norm) override;
  std::size_t max_nodes() const override;
  const Masking* masking() const override { return &masking_; }
  Result<void> unmask(privacy::Aggregation& aggregation) override;

 private:
  Masking masking_;
};

}  // namespace preceptor::coordinator
