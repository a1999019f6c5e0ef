#include <torch/torch.h>

#include "distill/loss.h"

namespace preceptor::distill {
namespace {

/// Cross-entropy against the class that the teacher would choose (Touvron 2020, arXiv:2012.12877). Such a label has no
/// temperature, and the gradient none to make up for.
at::Tensor hard_label(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& /*labels*/,
                      const DistillationOptions& /*options*/) {
  return torch::cross_entropy_loss(student, teacher.argmax(1));
}

const RegisterSoftLoss kHardLabel{"hard-label", {hard_label, 2, ""}};

}  // namespace
}  // namespace preceptor::distill
