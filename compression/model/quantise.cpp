#include "compression/model/quantise.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "compression/model/calibration.h"
#include "compression/model/repair.h"
#include "compression/model/restructure.h"
#include "models/adaptable.h"
#include "models/structure.h"
#include "training/training.h"

namespace preceptor::compression {
namespace {

using models::Adaptable;
using models::FlatModel;
using Bounds = std::map<std::string, InputHistogram::Bounds>;  ///< by layer

constexpr std::size_t kCorrectionImages = 128;  ///< in one batch: the channels' means need no more

/// `count` images, evenly spread.
data::Dataset spread(const data::Dataset& set, std::size_t count) {
  count = std::min(count, set.size());
  std::vector<std::size_t> index(count);
  for (std::size_t i = 0; i < count; ++i) index[i] = i * set.size() / count;
  return set.subset(index);
}

at::Tensor logits(FlatModel& model, const data::Dataset& set) {
  model.network().eval();
  return training::logits_of([&](const at::Tensor& images) { return model.forward(images); }, set, {}, 0, /*view=*/-1);
}

double relative_error(const at::Tensor& is, const at::Tensor& wanted) {
  const double deviation = (wanted - wanted.mean(0, /*keepdim=*/true)).square().mean().sqrt().item<double>();
  return (is - wanted).square().mean().sqrt().item<double>() / std::max(deviation, 1e-12);
}

/// Bounds of the inputs of the layers that the network calls.
Bounds calibrate(FlatModel& model, const data::Dataset& set, const QuantiseOptions& options) {
  std::map<std::string, InputHistogram> inputs;
  const auto layers = models::adaptable_layers(model.network());
  const auto look = [&](void (InputHistogram::*see)(const at::Tensor&)) {
    for (const auto& [name, layer] : layers) {
      if (begins_with(name, options.keep)) continue;
      dynamic_cast<Adaptable&>(*layer).watch([&inputs, name = name, see](const at::Tensor& input, at::Tensor&) { (inputs[name].*see)(input); });
    }
    logits(model, set);
    for (const auto& [name, layer] : layers) dynamic_cast<Adaptable&>(*layer).watch({});
  };
  look(&InputHistogram::see_extremes);
  if (options.calibration != "minmax") look(&InputHistogram::count);
  Bounds bounds;
  for (const auto& [name, histogram] : inputs)
    bounds[name] = options.calibration == "minmax"       ? histogram.extremes()
                   : options.calibration == "percentile" ? histogram.percentile(options.percentile)
                                                         : histogram.least_squares();
  std::erase_if(bounds, [](const auto& layer) { return layer.second.first == layer.second.second; });  // an input of zeros
  return bounds;
}

/// Float and rounded side by side, while it is found out which layers may round.
class Trial {
 public:
  Trial(FlatModel model, Bounds bounds, const at::Tensor& wanted, const data::Dataset& set)
      : model_(std::move(model)), bounds_(std::move(bounds)), wanted_(wanted), set_(set), tensors_(tensors_of(model_)) {}
  /// Of the logits when these layers round.
  double error(std::span<const std::string> rounding) {
    torch::NoGradGuard no_grad;
    for (const auto& [name, bounds] : bounds_) tensors_.at(name + ".input_range").zero_();  // 0, 0: the layer does not round
    for (const auto& name : rounding) set_range(tensors_, name, bounds_.at(name));
    return relative_error(logits(model_, set_), wanted_);
  }
  static void set_range(std::map<std::string, at::Tensor>& tensors, const std::string& layer, const InputHistogram::Bounds& bounds) {
    const auto& range = tensors.at(layer + ".input_range");
    range[0] = bounds.first;
    range[1] = bounds.second;
    const auto step = tensors.find(layer + ".input_step");
    if (step != tensors.end()) step->second.copy_((range[1] - range[0]) / 255);
  }

 private:
  FlatModel model_;
  Bounds bounds_;
  at::Tensor wanted_;
  const data::Dataset& set_;
  std::map<std::string, at::Tensor> tensors_;
};

/// Each layer's own error, the largest first; then how many of these stay in float, found by halving: the error falls as
/// more do.
Result<std::vector<QuantisedLayer>> choose(FlatModel& exact, const Bounds& bounds, const at::Tensor& wanted, const data::Dataset& set,
                                           const QuantiseOptions& options) {
  auto structure = exact.spec().structure;
  for (const auto& [name, range] : bounds) structure.int8[name] = options.rounding;
  Trial trial(TRY(restructured(exact, structure)), bounds, wanted, set);
  auto tensors = tensors_of(exact);
  std::vector<QuantisedLayer> layers;
  for (const auto& [name, range] : bounds)
    layers.push_back({name, std::size_t(tensors.at(name + ".weight").numel()), trial.error(std::span(&name, 1)), false});
  std::ranges::stable_sort(layers, std::greater(), &QuantisedLayer::error);
  std::vector<std::string> order;
  for (const auto& layer : layers) order.push_back(layer.layer);
  std::size_t low = 0, high = order.size();
  while (low < high) {
    const auto middle = (low + high) / 2;
    if (trial.error(std::span(order).subspan(middle)) <= options.budget)
      high = middle;
    else
      low = middle + 1;
  }
  for (std::size_t i = low; i < layers.size(); ++i) layers[i].int8 = true;
  return layers;
}

Result<FlatModel> rounded_model(FlatModel& exact, const Bounds& bounds, const std::vector<QuantisedLayer>& layers, const std::string& rounding) {
  auto structure = exact.spec().structure;
  for (const auto& layer : layers)
    if (layer.int8) structure.int8[layer.layer] = rounding;
  auto model = TRY(restructured(exact, structure));
  torch::NoGradGuard no_grad;
  auto tensors = tensors_of(model);
  for (const auto& [name, edit] : structure.int8) {
    Trial::set_range(tensors, name, bounds.at(name));
    auto& weight = tensors.at(name + ".weight");
    weight.copy_(models::rounded(weight));
  }
  return model;
}

}  // namespace

Result<QuantisedModel> quantise(FlatModel& model, const data::Dataset& calibration, const QuantiseOptions& options) {
  const auto& spec = model.spec();
  if (!spec.structure.int8.empty()) return fail(Code::kInvalid, "quantise: this {} is quantised already", spec.model.name);
  if (!spec.structure.lora.empty()) return fail(Code::kInvalid, "quantise: this {} has LoRA layers; merge them first", spec.model.name);
  if (calibration.size() == 0) return fail(Code::kInvalid, "quantise: there is no image to calibrate with");
  if (calibration.channels != spec.task.channels || calibration.height != spec.task.image_size)
    return fail(Code::kInvalid, "quantise: the network takes {} px and {} channels, the calibration set has {} and {}",
                spec.task.image_size, spec.task.channels, calibration.height, calibration.channels);
  torch::NoGradGuard no_grad;
  auto exact = TRY(fused(model));
  const auto set = spread(calibration, std::size_t(options.images));
  const auto wanted = logits(exact, set);
  const int equalised = options.equalise ? TRY(equalise(exact)) : 0;
  const auto bounds = calibrate(exact, set, options);
  auto layers = TRY(choose(exact, bounds, wanted, set, options));
  QuantisedModel done{TRY(rounded_model(exact, bounds, layers, options.rounding)), std::move(layers), 0, equalised};
  done.error = relative_error(logits(done.model, set), wanted);
  if (options.bias_correction) {
    const auto before = done.model.store();
    const auto few = spread(set, kCorrectionImages);
    std::vector<std::size_t> all(few.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    TRY(correct_bias(done.model, exact, training::make_batch(few, all).images));
    const double error = relative_error(logits(done.model, set), wanted);
    if (error < done.error)
      done.error = error;
    else
      done.model.load(before);
  }
  return done;
}

}  // namespace preceptor::compression
