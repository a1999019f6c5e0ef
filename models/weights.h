#pragma once
#include "models/flat_model.h"

namespace preceptor::models {

/// What became of a network's pieces when somebody else's weights were read into it.
struct LoadedWeights {
  struct LeftOut {
    std::string piece, reason;
  };
  std::string source;               ///< whose names the file has: "torchvision", "timm"
  std::size_t pieces = 0;           ///< that hold the file's values now
  std::vector<LeftOut> left_out;    ///< at their initial values still: a head for other classes, what the source lacks
  std::vector<std::string> unused;  ///< the file's tensors of floats that no piece asked for: of a larger network?
};

/// Initial values from a safetensors file that others wrote (torchvision, timm), under the names that the architecture
/// gives for each source (Architecture::names); the source with most fitting tensors is taken. F32, F16 and BF16.
/// - A head for another number of classes stays as it is.
/// - A first convolution for another number of channels is summed over them and divided among ours, so that a grey
///   image gives what it gave as three equal channels.
/// Everything else must be there with our shape, or the model is left as it was. Their images were normalised in
/// their own way (ImageNet's mean and deviation): weights to begin training with, not to predict with.
/// Errors: kInvalid (no such names known; tensors missing or of another shape: the first are named), kCorrupt (not
/// safetensors, not finite), kNotFound.
Result<LoadedWeights> load_weights(FlatModel& model, const std::filesystem::path& path);

/// Whether save_model wrote the file, so that load_model reads it. Error: as SafetensorsFile::load.
Result<bool> is_model_file(const std::filesystem::path& path);

}  // namespace preceptor::models
