#include <torch/torch.h>

#include "distill/loss.h"

namespace preceptor::distill {

/// T² · KL(softmax(teacher / T) ‖ softmax(student / T)), mean over the batch (and its pixels; Hinton 2015, arXiv:1503.02531).
at::Tensor soft_target(const at::Tensor& student, const at::Tensor& teacher, double t) {
  const auto log_student = torch::log_softmax(student / t, 1);
  const auto log_teacher = torch::log_softmax(teacher / t, 1);
  return (log_teacher.exp() * (log_teacher - log_student)).sum(1).mean() * (t * t);
}

namespace {
const RegisterSoftLoss kSoftTarget{
    "soft-target",
    {[](const auto& student, const auto& teacher, const auto& /*labels*/, const DistillationOptions& options) {
       return soft_target(student, teacher, options.temperature);
     },
     2, ""}};
}
}  // namespace preceptor::distill
