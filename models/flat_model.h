#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>

#include "common/parameter_space.h"
#include "common/random.h"
#include "common/safetensors.h"
#include "models/model.h"

namespace preceptor::models {

/// A network whose parameters and normalisation statistics are views into one contiguous float32 buffer,
/// and whose gradients are views into another: what follows training is a pass over flat floats.
/// Owns the network; move-only; used by one thread at a time.
class FlatModel {
 public:
  /// device: "cpu" or "cuda". Error: kInvalid (unknown model), kUnavailable (no such device).
  static Result<FlatModel> create(const ModelSpec& spec, const std::string& device = "cpu");

  Model& network() { return *network_; }
  const ModelSpec& spec() const { return spec_; }
  const ParameterSpace& space() const { return space_; }
  torch::Device device() const { return values_.device(); }
  at::Tensor& values() { return values_; }        ///< [space().size()], on the device
  at::Tensor& gradients() { return gradients_; }  ///< same shape; statistics' part stays zero

  /// Draws initial values: He-normal by fan-out for convolutions (2015, arXiv:1502.01852), N(0, 0.01) for
  /// linear weights, ones and zeros for normalisation; then whatever the network sets itself (Model::initialise).
  /// Depends on the stream and the architecture alone.
  void initialise(RandomStream random);

  /// Logits [B, classes]; images are moved to the device and to channels_last.
  at::Tensor forward(const at::Tensor& images);

  void load(std::span<const float> parameters);  ///< size must be space().size()
  std::vector<float> store() const;

 private:
  FlatModel() = default;
  ModelSpec spec_;
  std::shared_ptr<Model> network_;
  ParameterSpace space_;
  at::Tensor values_, gradients_;
};

/// A model file: safetensors by parameter name; its metadata holds the ModelSpec ("spec", YAML) and what
/// `extra` adds. Weights of layers that round stand there on their grid, as integers: "<name>" I8, "<name>.scale" F32 [out]
/// (models/adaptable.h); so what training left between the steps is lost. Reading checks every name, shape and value
/// against the spec's own architecture.
Result<void> save_model(const std::filesystem::path& path, const FlatModel& model,
                        const std::map<std::string, std::string>& extra = {});
struct LoadedModel {
  FlatModel model;
  std::map<std::string, std::string> metadata;
};
Result<LoadedModel> load_model(const std::filesystem::path& path, const std::string& device = "cpu");

}  // namespace preceptor::models
