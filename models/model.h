#pragma once
#include <torch/nn/module.h>

#include <functional>
#include <memory>

#include "common/random.h"
#include "common/registry.h"
#include "models/options.h"

namespace preceptor::models {

/// A network of the zoo. Parameter names are torchvision's where the architecture exists there, else timm's or the
/// paper's own code's.
class Model : public torch::nn::Module {
 public:
  /// Images [B, channels, S, S] float32, normalised. Classification: logits [B, classes]; in training mode, a network
  /// with a distillation token gives [B, 2, classes], the label head's and the teacher head's (in evaluation mode
  /// their mean). Segmentation: logits [B, classes, S, S].
  virtual torch::Tensor forward(torch::Tensor images) = 0;

  /// Sets the parameters that FlatModel::initialise's common rule gets wrong: state-space matrices, position
  /// embeddings, layer scales. Called after that rule, without gradients; writes in place.
  virtual void initialise(RandomStream& /*random*/) {}

  /// Puts one convolution in place of the branches that only training needs, for inference; the output in evaluation
  /// mode stays the same within rounding. Parameters change their names; there is no way back.
  virtual void fuse() {}
};

/// A count that a paper or its code gives, asserted by tests.
struct Published {
  ModelSpec spec;
  std::int64_t parameters;  ///< trainable
  std::int64_t macs = 0;    ///< 0: not given
  bool fused = false;       ///< of the network after fuse()
};

/// Our parameter's name → its name in somebody else's weights file; "" where that file has none.
using ParameterNames = std::function<std::string(const std::string& ours)>;

/// What the zoo says of an architecture. One a file, registered by the file's last line.
struct Architecture {
  std::string paradigm;  ///< "CNN", "Transformer", "linear"
  std::string task;      ///< "classification", "segmentation"
  std::string paper;
  std::function<Result<std::shared_ptr<Model>>(const ModelSpec&)> build;
  std::vector<ModelOptions> sizes = {};   ///< those worth listing, smallest first
  std::vector<Published> published = {};
  std::map<std::string, ParameterNames> names = {};  ///< by source: "torchvision", "timm"; absent: no such weights exist
};

Registry<Architecture>& zoo();
struct RegisterModel {
  RegisterModel(const char* name, Architecture architecture) { zoo().add(name, std::move(architecture)); }
};

/// The network, with LibTorch's default initial values; FlatModel::initialise gives reproducible ones.
/// Error: kInvalid for an unknown name, an option that this architecture does not have, or an image size that its
/// stem cannot take.
Result<std::shared_ptr<Model>> build(const ModelSpec& spec);

/// Multiply-adds of one forward pass at batch 1: convolutions and matrix products, as they are executed;
/// normalisation, activation and pooling are not counted.
std::int64_t count_macs(Model& model, const TaskOptions& task);

}  // namespace preceptor::models
