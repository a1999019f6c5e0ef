#pragma once
#include <torch/nn.h>

namespace preceptor::models {

/// While one lives, batch norms that this thread makes normalise groups instead: what build() does for
/// `normalisation: group`. Not copied; lives on the stack.
class GroupedNorms {
 public:
  explicit GroupedNorms(bool on) : outer_(on_) { on_ = on; }
  ~GroupedNorms() { on_ = outer_; }
  GroupedNorms(const GroupedNorms&) = delete;
  GroupedNorms& operator=(const GroupedNorms&) = delete;
  static bool active() { return on_; }

 private:
  static inline constinit thread_local bool on_ = false;
  bool outer_;
};

/// Groups that this many channels are normalised in: the largest divisor of theirs, 16 at most (De 2022, arXiv:2204.13650),
/// that leaves four channels or more to each; 1 where there is none. Pruned layers follow it too.
std::int64_t norm_groups(std::int64_t channels);

/// torch::nn::BatchNorm2d, or, made under GroupedNorms, group norm (Wu 2018, arXiv:1803.08494) under the same parameter
/// names, without statistics: no image's output depends on another image, in training as in evaluation mode.
class BatchNorm2dImpl : public torch::nn::BatchNorm2dImpl {
 public:
  explicit BatchNorm2dImpl(const torch::nn::BatchNormOptions& like);
  torch::Tensor forward(const torch::Tensor& x);
  bool grouped() const { return !options.track_running_stats(); }
};
TORCH_MODULE(BatchNorm2d);

}  // namespace preceptor::models
