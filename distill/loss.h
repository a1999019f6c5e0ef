#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

#include "common/registry.h"
#include "distill/options.h"

namespace preceptor::distill {

/// Pulls student logits [B, C] (or of each pixel: [B, C, S, S]) towards the teacher's, given the labels [B] (or [B, S, S])
/// int64 on the same device, at options.temperature. Returns a scalar [], in nats, scaled by T² so that its gradient does
/// not fade with T. Stateless; serves many threads.
using SoftLoss = std::function<at::Tensor(const at::Tensor& student, const at::Tensor& teacher, const at::Tensor& labels,
                                          const DistillationOptions& options)>;

struct SoftLossEntry {
  SoftLoss loss;
  int min_classes = 2;  ///< below, the loss says nothing
  std::string why;      ///< the reason for min_classes, for the error message
};
Registry<SoftLossEntry>& soft_losses();
struct RegisterSoftLoss {
  RegisterSoftLoss(const char* name, SoftLossEntry entry) { soft_losses().add(name, std::move(entry)); }
};

/// The loss, checked against the number of classes. Error: kInvalid.
Result<SoftLoss> find_soft_loss(const DistillationOptions& options, int classes);

/// Hinton's soft targets, which other losses build on: distill/soft_target.cpp.
at::Tensor soft_target(const at::Tensor& student, const at::Tensor& teacher, double temperature);

}  // namespace preceptor::distill
