#pragma once
#include "common/hash.h"
#include "common/result.h"
#include "transport/transfer.h"

namespace preceptor::node {

/// The last global model that a site has.
struct HeldModel {
  transport::Blob blob;     ///< null: none
  Digest digest{};
  std::uint32_t round = 0;  ///< the latest that it was given for; that after the last one for the verdict's
  /// It is the plan's first model, or this site made it of such a one from published sums, or more than f others
  /// signed that they did.
  bool recomputed = false;
};

/// As bytes, so that a daemon that starts again need not believe what it is told. plan: Digest of the job's.
Bytes store(const HeldModel& model, const Digest& plan);
/// Error: kCorrupt; kRefused, of another plan.
Result<HeldModel> restore_model(std::span<const std::byte> bytes, const Digest& plan);

}  // namespace preceptor::node
