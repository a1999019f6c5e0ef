#pragma once
#include <torch/nn/module.h>

#include <functional>
#include <memory>

#include "common/registry.h"
#include "models/options.h"

namespace preceptor::models {

/// A network of the zoo. Forward: images [B, channels, S, S] float32, normalised → logits [B, classes].
/// Parameter names are torchvision's where the architecture exists there.
class Model : public torch::nn::Module {
 public:
  virtual torch::Tensor forward(torch::Tensor images) = 0;
};

/// What the zoo says of an architecture. One a file, registered by the file's last line.
struct Architecture {
  std::string paradigm;  ///< "CNN", "Transformer", "linear"
  std::string task;      ///< "classification", "segmentation"
  std::string paper;
  std::function<Result<std::shared_ptr<Model>>(const ModelSpec&)> build;
};

Registry<Architecture>& zoo();
struct RegisterModel {
  RegisterModel(const char* name, Architecture architecture) { zoo().add(name, std::move(architecture)); }
};

/// The network, with LibTorch's default initial values; FlatModel::initialise gives reproducible ones.
/// Error: kInvalid for an unknown name or an option that this architecture does not have.
Result<std::shared_ptr<Model>> build(const ModelSpec& spec);

/// Multiply-adds of one forward pass at batch 1: convolutions and matrix products, as they are executed;
/// normalisation, activation and pooling are not counted.
std::int64_t count_macs(Model& model, const TaskOptions& task);

}  // namespace preceptor::models
