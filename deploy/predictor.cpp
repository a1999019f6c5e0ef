#include "deploy/predictor.h"

#include <torch/torch.h>

#include <algorithm>

#include "data/image.h"
#include "training/batch.h"
#include "training/segment.h"

namespace preceptor::deploy {
namespace {

/// Whether the pixels, RGB, are the same in all three channels but for a compression's rounding.
bool looks_grey(std::span<const std::uint8_t> pixels) {
  constexpr int kTolerance = 8;
  std::size_t coloured = 0;
  for (std::size_t i = 0; i + 2 < pixels.size(); i += 3) {
    const auto [low, high] = std::minmax({pixels[i], pixels[i + 1], pixels[i + 2]});
    coloured += high - low > kTolerance;
  }
  return coloured * 1000 < pixels.size() / 3;  // fewer than one pixel in a thousand
}

}  // namespace

Result<Predictor> Predictor::load(const std::filesystem::path& file) {
  auto loaded = TRY(models::load_model(file));
  auto contract = TRY(training::read_contract(loaded, file.string()));
  const auto& spec = loaded.model.spec();
  const auto* architecture = TRY(models::zoo().find(spec.model.name));
  auto engine = TRY(Engine::create(loaded.model));
  return Predictor(std::move(engine), std::move(contract), spec.task, architecture->task == "segmentation");
}

Result<Prediction> Predictor::predict(std::span<const std::byte> image) {
  const auto shape = TRY(data::peek_image(image));
  if (std::min(shape.height, shape.width) < task_.image_size)
    return fail(Code::kRefused, "it is {} × {} px; the model was trained on images of at least {} px a side", shape.width, shape.height, task_.image_size);
  std::vector<std::uint8_t> colour;
  if (shape.channels == 3) TRY(data::decode_image(image, task_.image_size, 3, colour));
  const bool grey = shape.channels == 1 || looks_grey(colour);
  if (grey != (task_.channels == 1))
    return fail(Code::kRefused, "it is a {} image; the model was trained on {} ones", grey ? "grey" : "colour", task_.channels == 1 ? "grey" : "colour");
  std::vector<std::uint8_t> pixels;
  TRY(data::decode_image(image, task_.image_size, task_.channels, pixels));
  if (const auto why = training::unlike(contract_, pixels)) return fail(Code::kRefused, "{}", *why);

  torch::NoGradGuard no_grad;
  const auto logits = engine_.logits(training::normalised(pixels, task_.image_size, task_.image_size, task_.channels).unsqueeze(0))[0];
  Prediction prediction;
  if (segmentation_) {
    prediction.mask = training::class_map(logits);
    prediction.probabilities.assign(std::size_t(task_.classes), 0);
    for (const auto c : prediction.mask) prediction.probabilities[c] += 1.0 / double(prediction.mask.size());
  } else {
    const auto soft = (logits.to(torch::kDouble) / contract_.temperature).softmax(0).contiguous();
    prediction.probabilities.assign(soft.data_ptr<double>(), soft.data_ptr<double>() + soft.numel());
  }
  prediction.chosen = std::size_t(std::ranges::max_element(prediction.probabilities) - prediction.probabilities.begin());
  return prediction;
}

}  // namespace preceptor::deploy
