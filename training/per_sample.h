#pragma once
#include <set>

#include "training/training.h"

namespace preceptor::training {

/// What one call of PerSampleGradients found. [B], float32, on the model's device.
struct SampleNorms {
  at::Tensor norms;   ///< L2 of each image's own gradient, all parameters together, before clipping
  at::Tensor losses;  ///< of each image alone
};

/// The gradients of images one by one, seen through their norms and their clipped sum, which is all that DP-SGD needs
/// (Abadi 2016, arXiv:1607.00133). A layer's input and the gradient of its output hold both: one forward and one backward
/// pass over the batch, without the weights' own part, then one product a layer (book-keeping, Bu 2023, arXiv:2210.00038).
/// Norms come, by shape, from the images' gradients themselves or from two Gram matrices (ghost norm, Li 2021,
/// arXiv:2110.05679). Operators are watched as they run, so networks need not know.
///
/// Convolutions, linear, group and layer norms, and parameters that are added or multiplied, are known. A network that uses
/// a parameter in another way, or twice, goes image by image: correct, slower, said once in the log. The first images of
/// each batch size are also done by backward passes of their own, among other images, and where the two disagree, all go
/// image by image.
///
/// The loss is evaluated on each image alone, so whatever the objective, no image bears on another's gradient.
/// Borrows model and objective; used by one thread.
class PerSampleGradients {
 public:
  /// Error: kInvalid, with the way out, for networks in which images bear on each other or are remembered without noise
  /// (batch norm, ranges of layers that round), and for objectives that are not by_image().
  static Result<PerSampleGradients> create(models::FlatModel& model, Objective& objective);

  /// Adds Σ min(1, bound / ‖g_i‖) g_i over the batch's first `count` images to model.gradients(); the others are padding.
  SampleNorms add_clipped(const Batch& batch, std::int64_t count, double bound);

  /// The same by one backward pass for each image: what the above is tested against.
  SampleNorms add_clipped_one_by_one(const Batch& batch, std::int64_t count, double bound);

  bool one_by_one() const { return one_by_one_; }

 private:
  PerSampleGradients(models::FlatModel& model, Objective& objective) : model_(&model), objective_(&objective) {}
  at::Tensor losses(const Batch& batch);
  void give_up(const std::string& reason);
  double norm_among_others(const Batch& batch, std::int64_t i);
  void check(const Batch& batch, const at::Tensor& norms);

  models::FlatModel* model_;
  Objective* objective_;
  bool one_by_one_ = false;
  std::set<std::int64_t> checked_;  ///< batch sizes
};

/// Image i of a batch, as a batch.
Batch one_of(const Batch& batch, std::int64_t i);

}  // namespace preceptor::training
