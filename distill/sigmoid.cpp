#include <torch/torch.h>

#include "distill/loss.h"

namespace preceptor::distill {
namespace {

/// For labels that do not exclude each other: T² · Σ over labels of KL(σ(teacher / T) ‖ σ(student / T)), each a yes or no of its
/// own; mean over the batch (and its pixels). It is the binary cross-entropy against σ(teacher / T) less the teacher's own
/// entropy, which has no gradient: so it is 0 where both agree. The sum over labels pulls a logit as hard as soft-target does.
at::Tensor per_label(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& /*labels*/,
                     const DistillationOptions& options) {
  const double t = options.temperature;
  const auto s = student / t, p = teacher / t;
  const auto yes = p.sigmoid() * (torch::log_sigmoid(p) - torch::log_sigmoid(s));
  const auto no = (-p).sigmoid() * (torch::log_sigmoid(-p) - torch::log_sigmoid(-s));
  return (yes + no).sum(1).mean() * (t * t);
}

const RegisterSoftLoss kSigmoid{"sigmoid", {per_label, 1, ""}};

}  // namespace
}  // namespace preceptor::distill
