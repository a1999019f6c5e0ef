#include "compression/model/lora.h"

#include <torch/torch.h>

#include <cmath>

#include "compression/model/restructure.h"
#include "models/adaptable.h"
#include "models/structure.h"

namespace preceptor::compression {
namespace {

/// Largest rank of an addition; 0: the layer can have none.
std::int64_t largest_rank(const torch::nn::Module& layer, const at::Tensor& weight) {
  const auto* conv = layer.as<torch::nn::Conv2dImpl>();
  if (conv && conv->options.groups() != 1) return 0;
  return std::min(weight.size(0), weight.size(1));
}

void draw(const at::Tensor& weight, RandomStream random) {
  const double deviation = 1 / std::sqrt(double(weight.numel() / weight.size(0)));
  const auto values = torch::empty(weight.sizes());
  for (auto& value : std::span(values.data_ptr<float>(), std::size_t(values.numel()))) value = float(deviation * random.normal());
  weight.copy_(values);
}

}  // namespace

Result<models::FlatModel> add_lora(models::FlatModel& model, const LoraOptions& options, std::uint64_t seed) {
  const auto& name = model.spec().model.name;
  if (options.rank < 1) return fail(Code::kInvalid, "lora: rank is {}; give 1 or more", options.rank);
  if (!model.spec().structure.lora.empty()) return fail(Code::kInvalid, "lora: this {} has LoRA layers already", name);
  torch::NoGradGuard no_grad;
  auto base = TRY(fused(model));
  auto structure = base.spec().structure;
  auto tensors = tensors_of(base);
  const auto head = models::head_of(base.network());
  for (const auto& [layer, module] : models::adaptable_layers(base.network())) {
    if (layer == head || (!options.layers.empty() && !begins_with(layer, options.layers))) continue;
    const auto rank = std::min<std::int64_t>(options.rank, largest_rank(*module, tensors.at(layer + ".weight")));
    if (rank > 0) structure.lora[layer] = std::to_string(rank);
  }
  if (structure.lora.empty())
    return fail(Code::kInvalid, "lora: {} has no layer for it{}", name,
                options.layers.empty() ? "" : fmt::format(" that begins with {}", fmt::join(options.layers, " or ")));
  auto made = TRY(restructured(base, structure));
  tensors = tensors_of(made);
  for (const auto& [layer, rank] : structure.lora) draw(tensors.at(layer + ".lora_down.weight"), RandomStream(seed, "lora/" + layer));
  return made;
}

Result<models::FlatModel> merge_lora(models::FlatModel& model) {
  torch::NoGradGuard no_grad;
  auto structure = model.spec().structure;
  structure.lora.clear();
  auto merged = TRY(restructured(model, structure));
  auto from = tensors_of(model), to = tensors_of(merged);
  for (const auto& [layer, rank] : model.spec().structure.lora) {
    const auto down = from.at(layer + ".lora_down.weight").to(torch::kFloat64), up = from.at(layer + ".lora_up.weight").to(torch::kFloat64);
    const auto product = up.flatten(1).mm(down.flatten(1));  // [out, in · h · w]
    auto& weight = to.at(layer + ".weight");
    weight.add_(product.view(weight.sizes()).to(torch::kFloat32));
  }
  return merged;
}

}  // namespace preceptor::compression
