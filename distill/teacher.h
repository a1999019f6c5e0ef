#pragma once
#include <filesystem>
#include <functional>

#include "models/flat_model.h"
#include "training/training.h"

namespace preceptor::distill {

/// A frozen network that gives logits, [B, classes] or [B, classes, S, S]. From a zoo model, a model file, or a TorchScript file;
/// the last is code: it is run only when a local user names it, and never comes over a wire.
class Teacher {
 public:
  /// Keeps the model alive and in evaluation mode.
  static Teacher wrap(std::shared_ptr<models::FlatModel> model);
  /// ".safetensors": a zoo model; ".pt", ".ts": TorchScript. Error: kInvalid when the task does not match.
  static Result<Teacher> load(const std::filesystem::path& path, const models::TaskOptions& task, const std::string& device,
                              bool segmentation = false);

  at::Tensor logits(const at::Tensor& images) const { return network_(images); }
  /// Whether images of this size and these channels go through; position embeddings may tie a network to one size.
  bool takes(const models::TaskOptions& task) const;
  const training::Network& network() const { return network_; }
  /// The zoo model behind it; null for TorchScript.
  models::FlatModel* model() const { return model_.get(); }

 private:
  std::shared_ptr<models::FlatModel> model_;
  training::Network network_;
};

/// A teacher's logits on a data set, computed once a view and kept ([N, classes] or [N, classes, S, S] float32 each);
/// views beyond 512 MiB in all are not kept but computed batch by batch.
class LogitCache {
 public:
  LogitCache(Teacher teacher, const data::Dataset& dataset, const training::AugmentOptions& augment, std::uint64_t seed)
      : teacher_(std::move(teacher)), dataset_(dataset), augment_(augment), seed_(seed) {}
  /// Rows for a batch.
  at::Tensor rows(const training::Batch& batch);
  std::size_t computed() const { return views_.size(); }

 private:
  Teacher teacher_;
  const data::Dataset& dataset_;
  training::AugmentOptions augment_;
  std::uint64_t seed_;
  std::map<int, at::Tensor> views_;
};

}  // namespace preceptor::distill
