#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/edge.h>

#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

namespace preceptor::training {

/// An operator that took trained parameters, as a forward pass ran it.
struct LayerCall {
  std::string name;                    ///< "aten::convolution"
  std::vector<c10::IValue> arguments;  ///< in the order of its schema
  torch::autograd::Edge output;        ///< where the gradient of its output arrives, whatever is done to that in place later
};

/// What a pass of a network did with its parameters. While one lives, it watches the operators that this thread runs.
class LayerRecorder {
 public:
  /// Trained parameters of the network; `images` in the batch.
  LayerRecorder(const std::vector<at::Tensor>& parameters, std::int64_t images);
  ~LayerRecorder();
  LayerRecorder(const LayerRecorder&) = delete;
  LayerRecorder& operator=(const LayerRecorder&) = delete;

  const std::vector<LayerCall>& calls() const { return calls_; }
  /// The first use of a parameter that no rule covers; nullopt: all are covered.
  const std::optional<std::string>& unknown() const { return unknown_; }

 private:
  friend struct RecorderCallbacks;
  bool is_parameter(const at::Tensor& tensor) const;
  void refuse(const std::string& use);

  std::unordered_map<const c10::TensorImpl*, int> uses_;
  std::int64_t images_;
  std::vector<LayerCall> calls_;
  std::optional<std::string> unknown_;
  int inside_ = 0;  ///< operators with a rule that are running
  std::uint64_t handle_ = 0;
  LayerRecorder* outer_;
};

/// The gradients of one parameter, image by image, held as it is cheaper.
struct ParameterGradients {
  at::Tensor target;           ///< the parameter's gradient, or a view of it
  at::Tensor each;             ///< [B, … as target]; or, undefined, target [out, in] and Σ_t outputs ⊗ inputs of these:
  at::Tensor inputs, outputs;  ///< [B, T, in], [B, T, out]

  void add_squares(at::Tensor& squares) const;     ///< ‖·‖² of each image to [B]
  void add_sum(const at::Tensor& factors) const;   ///< Σ factors[i] · gradient of image i to target
};

/// Those of the parameters of one call, from the gradient of its output. Without gradients.
std::vector<ParameterGradients> gradients_of(const LayerCall& call, const at::Tensor& grad);

}  // namespace preceptor::training
