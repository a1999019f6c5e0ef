#pragma once
#include <filesystem>

#include "models/options.h"

/// A trained model as a file that others run.
namespace preceptor::deploy {

enum class Format { kOnnx, kTorchScript, kSafetensors };
/// "onnx", "torchscript", "safetensors". Error: kInvalid, listing them.
Result<Format> format_of(const std::string& name);

/// What was written.
struct Exported {
  models::ModelSpec spec;      ///< of the network in the file; structure.fused where it had branches to fold
  std::size_t bytes = 0;
  std::size_t operators = 0;   ///< LibTorch's, after norms were folded; 0: safetensors
  std::size_t int8_layers = 0;
};

/// Reads a model file and writes its network, branches that only training needs folded into one convolution each
/// (Model::fuse), in evaluation mode. ONNX and TorchScript hold what preprocessing they expect, the classes and the
/// ModelSpec in their metadata; safetensors is a preceptor model file again, with the other metadata handed on.
/// Error: kInvalid for an operator that the format cannot say; those of models::load_model and write_file.
Result<Exported> export_model(const std::filesystem::path& model, Format format, const std::filesystem::path& out);

}  // namespace preceptor::deploy
