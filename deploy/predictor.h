#pragma once
#include <filesystem>

#include "deploy/engine.h"
#include "training/contract.h"

/// A model in a clinic: images in, calibrated probabilities out, or a reason why not.
namespace preceptor::deploy {

/// What a model says of one image.
struct Prediction {
  std::vector<double> probabilities;  ///< calibrated, by class; of segmentation: share of the image's pixels
  std::size_t chosen = 0;             ///< the likeliest class
  std::vector<std::uint8_t> mask;     ///< segmentation: class of each pixel, S × S; else empty
};

/// A model file with its engine and its contract. One thread at a time.
class Predictor {
 public:
  /// Errors: as load_model and read_contract.
  static Result<Predictor> load(const std::filesystem::path& file);

  /// An encoded PNG, JPEG or BMP. Errors: kRefused when it is not what the model was trained for (colour for a model of
  /// grey images or the reverse, a side shorter than the model's, brightness or contrast that no training image had);
  /// as data::decode_image.
  Result<Prediction> predict(std::span<const std::byte> image);

  const models::TaskOptions& task() const { return task_; }
  const training::Contract& contract() const { return contract_; }
  bool segmentation() const { return segmentation_; }

 private:
  Predictor(Engine engine, training::Contract contract, models::TaskOptions task, bool segmentation)
      : engine_(std::move(engine)), contract_(std::move(contract)), task_(task), segmentation_(segmentation) {}
  Engine engine_;
  training::Contract contract_;
  models::TaskOptions task_;
  bool segmentation_;
};

}  // namespace preceptor::deploy
