#include <torch/torch.h>

#include <limits>

#include "distill/loss.h"

namespace preceptor::distill {
namespace {

/// Decoupled knowledge distillation (Zhao 2022, arXiv:2203.08679): T² · (α · TCKD + β · NCKD), mean over the batch (and its
/// pixels). With p the softmax of logits / T and t the label:
///   TCKD = KL of (p_t, 1 − p_t), how sure the teacher is of the label;
///   NCKD = KL of p_i / (1 − p_t) over i ≠ t, what it makes of the other classes.
/// Hinton's loss is TCKD + (1 − p_t of the teacher) · NCKD: where the teacher is sure, it all but hides what the other classes
/// look like, and β brings that back.
/// Of two classes only one is not the label's, and NCKD compares 1 with 1: it is 0, whatever the networks say, and so is
/// its gradient. The loss is then α times Hinton's, and β has no say; the first split still stands, so this is no error.
/// Left out is the paper's warm-up of the loss over 20 epochs; training.warmup does its work.
at::Tensor dkd(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels, const DistillationOptions& options) {
  const double t = options.temperature;
  const auto label = labels.unsqueeze(1);
  const auto is_label = torch::zeros_like(student, torch::kBool).scatter_(1, label, true);
  struct Parts {
    at::Tensor label, others;  ///< logs of p_t and of 1 − p_t, [B, 1, …]
    at::Tensor among_others;   ///< logs of p_i / (1 − p_t), [B, C, …]; 0 at the label
  };
  const auto split = [&](const at::Tensor& logits) {
    const auto all = torch::log_softmax(logits / t, 1);
    const auto others = all.masked_fill(is_label, -std::numeric_limits<double>::infinity()).logsumexp(1, /*keepdim=*/true);
    return Parts{all.gather(1, label), others, (all - others).masked_fill(is_label, 0)};
  };
  const auto s = split(student), p = split(teacher);
  const auto tckd = p.label.exp() * (p.label - s.label) + p.others.exp() * (p.others - s.others);
  // At the label the difference is 0, so that its factor of exp(0) does no harm.
  const auto nckd = (p.among_others.exp() * (p.among_others - s.among_others)).sum(1);
  return (options.alpha * tckd.mean() + options.beta * nckd.mean()) * (t * t);
}

const RegisterSoftLoss kDkd{"dkd", {dkd, 2, ""}};

}  // namespace
}  // namespace preceptor::distill
