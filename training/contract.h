#pragma once
#include "common/options.h"
#include "models/flat_model.h"
#include "training/outcome.h"

namespace preceptor::training {

/// What a model was trained to see and how its confidence is to be read: what a box in a clinic checks before it answers.
/// Travels in the metadata of a model file, under "contract". Measured on the trainer's own images; no image is in it.
struct Contract {
  std::vector<std::string> classes;            ///< names, by label
  double brightness_low = 0, brightness_high = 255;  ///< mean pixel of an image, 0 … 255: the range that was seen, and a margin
  double contrast_low = 0, contrast_high = 255;      ///< standard deviation of its pixels, likewise
  double temperature = 1;  ///< logits are divided by it before softmax (Guo 2017, arXiv:1706.04599)
  template <class V>
  void visit(V& v) {
    v("classes", classes);
    v("brightness_low", brightness_low, Range{0, 255});
    v("brightness_high", brightness_high, Range{0, 255});
    v("contrast_low", contrast_low, Range{0, 255});
    v("contrast_high", contrast_high, Range{0, 255});
    v("temperature", temperature, Range{0.01, 100});
  }
};

/// Ranges from the training images, widened by a quarter of their width on either side; the temperature that gives the
/// validation images the least negative log-likelihood (1 for segmentation, or without validation images).
Contract make_contract(models::FlatModel& model, const data::Splits& data);

/// The metadata entry, and back. A model file without one: kNotFound; one that is no contract: kCorrupt.
std::map<std::string, std::string> contract_metadata(Contract contract);
Result<Contract> read_contract(const models::LoadedModel& loaded, const std::string& file);

/// Why an image is not one that the model was trained for; nullopt if it is. pixels [S·S·channels] as the model takes them.
std::optional<std::string> unlike(const Contract& contract, std::span<const std::uint8_t> pixels);

/// The temperature of least mean negative log-likelihood for logits [N, classes] with labels [N]; within 0.05 … 20.
double fit_temperature(std::span<const float> logits, std::span<const std::int32_t> labels, std::size_t classes);

}  // namespace preceptor::training
