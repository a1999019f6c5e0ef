#pragma once
#include <ATen/core/Tensor.h>

#include <memory>

#include "common/parameter_space.h"
#include "training/options.h"

namespace preceptor::training {

/// A step on flat parameters: values and gradients are [space.size()] on one device. Normalisation
/// statistics have no gradient and stay as they are. Owned by one training loop.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual void step(at::Tensor& values, const at::Tensor& gradients, double learning_rate) = 0;
};

/// sgd: Nesterov momentum (Sutskever 2013); adamw: decoupled decay (Loshchilov 2017, arXiv:1711.05101).
std::unique_ptr<Optimizer> make_optimizer(const TrainingOptions& options, const ParameterSpace& space, const at::Tensor& like);

/// Shortens the gradients to an L2 norm of at most `norm`; 0: leaves them as they are.
void clip(at::Tensor& gradients, double norm);

/// Factor on the base rate at `progress` in [0, 1] of the whole job.
double schedule_factor(const TrainingOptions& options, double progress);

}  // namespace preceptor::training
