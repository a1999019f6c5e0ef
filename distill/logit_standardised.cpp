#include <torch/torch.h>

#include "distill/loss.h"

namespace preceptor::distill {
namespace {

at::Tensor standardise(const at::Tensor& logits) {
  return (logits - logits.mean(1, true)) / (logits.std(1, /*unbiased=*/true, /*keepdim=*/true) + 1e-7);
}

/// Soft targets between z-scored logits: the student matches the teacher's shape, not its scale
/// (Sun 2024, arXiv:2403.01427).
at::Tensor logit_standardised(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& /*labels*/,
                              const DistillationOptions& options) {
  return soft_target(standardise(student), standardise(teacher), options.temperature);
}

const RegisterSoftLoss kLogitStandardised{
    "logit-standardised",
    {logit_standardised, 3, "two z-scored logits are always -0.71 and 0.71, so no gradient is left; use soft-target"}};

}  // namespace
}  // namespace preceptor::distill
