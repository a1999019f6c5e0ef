#pragma once
#include "plan/plan.h"
#include "privacy/secure_aggregation/context.h"

namespace preceptor {

/// What a plan says of every secure aggregation of its job; round, model, roster and members are the round's.
/// Coordinator and node make it alike, each from the plan as it has it. text: the plan as it travels, to the byte.
inline privacy::SessionContext session_context(const Plan& plan, std::string_view text, const compression::RingCodec& ring) {
  const auto& options = plan.privacy.secure_aggregation;
  privacy::SessionContext context;
  context.job = plan.job;
  context.plan = sha256(text);
  context.k_min = options.k_min;
  context.colluders = options.colluders;
  context.recomputed = plan.downlink.mode == "sum";
  context.suite = privacy::Suite(options.suite);
  context.vectors = {{"update", ring.words(), ring.options().ring_bits}};
  if (ring.totals() > 0) context.vectors.push_back({"totals", ring.totals(), 64});
  return context;
}

}  // namespace preceptor
