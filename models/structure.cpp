#include "models/structure.h"

#include <torch/torch.h>

#include <charconv>

#include "models/cnn/reparameterise.h"

namespace preceptor::models {
namespace {

/// Numbers parted by commas, each 1 … 2^31. Error: kInvalid.
Result<std::vector<std::int64_t>> numbers(const std::string& name, const std::string& text) {
  std::vector<std::int64_t> values;
  const char *at = text.data(), *end = at + text.size();
  while (at < end) {
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(at, end, value);
    if (error != std::errc() || value < 1 || value > INT32_MAX)
      return fail(Code::kInvalid, "structure: {}: '{}' is no list of numbers from 1 on", name, text.substr(0, 60));
    values.push_back(value);
    at = stop;
    while (at < end && (*at == ',' || *at == ' ')) ++at;
  }
  if (values.empty()) return fail(Code::kInvalid, "structure: {}: nothing is given", name);
  return values;
}

using Change = std::function<void(Adaptable&)>;

/// Runs the change on each named layer. LibTorch's complaints become errors.
template <class Parse>
Result<void> change_layers(const std::map<std::string, std::string>& edits, const char* kind, Model& network, Parse parse) {
  for (const auto& [name, text] : edits) {
    const auto layers = adaptable_layers(network);
    const auto found = layers.find(name);
    if (found == layers.end()) return fail(Code::kInvalid, "structure.{}: there is no layer '{}' that it could change", kind, name);
    const Change change = TRY(parse(name, text));
    try {
      change(dynamic_cast<Adaptable&>(*found->second));
    } catch (const c10::Error& e) {
      return fail(Code::kInvalid, "structure.{}: {}: {}", kind, name, e.what_without_backtrace());
    }
  }
  return {};
}

Result<Change> factorisation(const std::string& name, const std::string& text) {
  const auto ranks = TRY(numbers(name, text));
  if (ranks.size() > 2) return fail(Code::kInvalid, "structure.low_rank: {}: one rank or two, not {}", name, ranks.size());
  return [r = Ranks{ranks[0], ranks.size() > 1 ? ranks[1] : 0}](Adaptable& layer) { layer.factorise(r); };
}

Result<Change> addition(const std::string& name, const std::string& text) {
  const auto rank = TRY(numbers(name, text));
  return [r = rank[0]](Adaptable& layer) { layer.add_lora(r); };
}

Result<Change> rounding(const std::string& name, const std::string& text) {
  if (text != "observed" && text != "learned")
    return fail(Code::kInvalid, "structure.int8: {}: 'observed' or 'learned', not '{}'", name, text.substr(0, 60));
  return [how = text == "learned" ? Rounding::kLearned : Rounding::kObserved](Adaptable& layer) { layer.round(how); };
}

/// What the layers remember beside their tensors' shapes.
void follow_shapes(torch::nn::Module& module) {
  if (auto* conv = module.as<torch::nn::Conv2dImpl>(); conv && conv->weight.defined()) {
    const auto& w = conv->weight;
    const auto groups = conv->options.groups() == 1 ? 1 : w.size(1) == 1 ? w.size(0) : conv->options.groups();
    conv->options.out_channels(w.size(0)).groups(groups).in_channels(w.size(1) * groups);
  } else if (auto* linear = module.as<torch::nn::LinearImpl>(); linear && linear->weight.defined()) {
    linear->options.out_features(linear->weight.size(0)).in_features(linear->weight.size(1));
  } else if (auto* layer_norm = module.as<torch::nn::LayerNormImpl>()) {
    layer_norm->options.normalized_shape(layer_norm->weight.sizes().vec());
  } else if (auto* batch_norm = module.as<torch::nn::BatchNorm2dImpl>()) {
    batch_norm->options.num_features(batch_norm->weight.size(0));
  }
}

Result<void> set_shapes(const std::map<std::string, std::string>& shapes, Model& network) {
  auto parameters = network.named_parameters();
  auto buffers = network.named_buffers();
  for (const auto& [name, text] : shapes) {
    const auto shape = TRY(numbers(name, text));
    auto* tensor = parameters.contains(name) ? &parameters[name] : buffers.contains(name) ? &buffers[name] : nullptr;
    if (!tensor) return fail(Code::kInvalid, "structure.shapes: there is no parameter '{}'", name);
    const auto old = tensor->sizes();
    bool fits = old.size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] <= old[i];
    if (!fits)
      return fail(Code::kInvalid, "structure.shapes: {} is [{}] and cannot become [{}]", name, fmt::join(old, ", "), fmt::join(shape, ", "));
    torch::NoGradGuard no_grad;
    tensor->set_data(torch::zeros(shape, tensor->options()));
  }
  for (const auto& module : network.modules()) follow_shapes(*module);
  return {};
}

/// All but what LoRA trains: its upper factors, and the head, which every task has its own of.
void freeze(Model& network) {
  const auto head = head_of(network) + ".";
  for (auto& parameter : network.named_parameters()) {
    const auto& name = parameter.key();
    const bool of_lora = name.find("lora_") != std::string::npos;
    parameter.value().set_requires_grad(of_lora ? name.find("lora_up.") != std::string::npos : name.starts_with(head));
  }
}

}  // namespace

std::string head_of(Model& network) {
  std::string last;
  for (const auto& name : network.named_parameters().keys())
    if (name.find("lora_") == std::string::npos) last = name;
  return last.substr(0, last.rfind('.'));
}

std::string shape_text(std::span<const std::int64_t> shape) { return fmt::format("{}", fmt::join(shape, ", ")); }

std::map<std::string, std::shared_ptr<torch::nn::Module>> adaptable_layers(Model& network) {
  std::map<std::string, std::shared_ptr<torch::nn::Module>> layers;
  std::vector<std::string> closed;  // parts that fuse() will replace whole
  for (const auto& item : network.named_modules("", /*include_self=*/false)) {
    const auto& [name, module] = item.pair();
    if (const auto* part = dynamic_cast<Fusible*>(module.get()); part && !part->fused()) closed.push_back(name + ".");
    const bool inside = std::ranges::any_of(closed, [&](const auto& part) { return name.starts_with(part); });
    const auto* layer = dynamic_cast<Adaptable*>(module.get());
    if (layer && !layer->factorised() && !inside) layers[name] = module;
  }
  return layers;
}

Result<void> apply(const StructureOptions& structure, Model& network) {
  torch::NoGradGuard no_grad;
  if (structure.fused) network.fuse();
  TRY(change_layers(structure.low_rank, "low_rank", network, factorisation));
  TRY(set_shapes(structure.shapes, network));
  TRY(change_layers(structure.lora, "lora", network, addition));
  if (!structure.lora.empty()) freeze(network);
  return change_layers(structure.int8, "int8", network, rounding);
}

Result<StructureOptions> with_shapes_of(const ModelSpec& spec, Model& network) {
  auto plain = spec;
  plain.structure.shapes.clear();
  const auto whole = TRY(build(plain));
  std::map<std::string, std::vector<std::int64_t>> before;
  for (const auto& item : whole->named_parameters()) before[item.key()] = item.value().sizes().vec();
  for (const auto& item : whole->named_buffers()) before[item.key()] = item.value().sizes().vec();
  auto structure = plain.structure;
  const auto compare = [&](const auto& items) {
    for (const auto& item : items)
      if (const auto shape = item.value().sizes().vec(); before.at(item.key()) != shape) structure.shapes[item.key()] = shape_text(shape);
  };
  compare(network.named_parameters());
  compare(network.named_buffers());
  return structure;
}

}  // namespace preceptor::models
