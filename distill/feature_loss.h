#pragma once
#include <functional>
#include <memory>

#include "common/registry.h"
#include "distill/options.h"
#include "models/tap.h"
#include "training/options.h"

namespace preceptor::distill {

/// Pulls what a student makes of a batch on its way to the logits towards what a teacher makes of it. Scaled by the weights
/// that its literature reports, so that feature_weight is about 1 for each. Made for one training; used by one thread.
class FeatureLoss {
 public:
  virtual ~FeatureLoss() = default;
  /// Two or more images; the teacher's features without gradient, on the student's device. Returns a scalar [].
  virtual at::Tensor loss(const models::Features& student, const models::Features& teacher) = 0;
  /// After each of the student's steps, at its learning rate: moves the loss's own parameters, if it has any.
  virtual void step(double /*learning_rate*/) {}
};

struct FeatureLossEntry {
  std::function<std::unique_ptr<FeatureLoss>(const training::TrainingOptions& options, std::uint64_t seed)> make;
  bool learns = false;  ///< it has parameters of its own, which a site's round would begin anew each time
};
Registry<FeatureLossEntry>& feature_losses();
struct RegisterFeatureLoss {
  RegisterFeatureLoss(const char* name, FeatureLossEntry entry) { feature_losses().add(name, std::move(entry)); }
};

/// Maps of both [B, Cs, H, W] and [B, Ct, H, W], brought to the smaller of the two sizes by their means.
struct MapPair {
  at::Tensor student, teacher;
};
/// The last stages of both networks in pairs, shallow to deep, as many as the one with fewer has.
std::vector<MapPair> paired_maps(const models::Features& student, const models::Features& teacher);

}  // namespace preceptor::distill
