#include "distill/loss.h"

namespace preceptor::distill {

Registry<SoftLossEntry>& soft_losses() {
  static Registry<SoftLossEntry> registry("distillation loss");
  return registry;
}

Result<SoftLoss> find_soft_loss(const DistillationOptions& options, int classes) {
  const auto* entry = TRY(soft_losses().find(options.loss));
  if (classes < entry->min_classes)
    return fail(Code::kInvalid, "distillation loss '{}' needs {} classes, not {}: {}", options.loss, entry->min_classes, classes, entry->why);
  return entry->loss;
}

}  // namespace preceptor::distill
