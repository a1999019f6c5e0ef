#include "compression/model/restructure.h"

#include <torch/torch.h>

#include <algorithm>

#include "models/cnn/reparameterise.h"
#include "models/structure.h"

namespace preceptor::compression {
namespace {

std::string device_of(const models::FlatModel& model) { return model.device().is_cuda() ? "cuda" : "cpu"; }

bool has_branches(models::Model& network) {
  return std::ranges::any_of(network.modules(), [](const auto& module) {
    const auto* part = dynamic_cast<models::Fusible*>(module.get());
    return part && !part->fused();
  });
}

/// The model of this structure with the values of what `source` has, by name.
Result<models::FlatModel> with_values_of(const std::map<std::string, at::Tensor>& source, const models::FlatModel& model,
                                         const models::StructureOptions& structure) {
  auto made = TRY(models::FlatModel::create({model.spec().model, model.spec().task, structure}, device_of(model)));
  torch::NoGradGuard no_grad;
  made.values().zero_();
  for (auto& [name, tensor] : tensors_of(made)) {
    const auto found = source.find(name);
    if (found != source.end() && found->second.sizes() == tensor.sizes()) tensor.copy_(found->second);
  }
  made.network().train(false);
  return made;
}

}  // namespace

std::map<std::string, at::Tensor> tensors_of(models::FlatModel& model) {
  std::map<std::string, at::Tensor> tensors;
  for (const auto& piece : model.space().pieces())
    tensors[piece.name] = model.values().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).view(piece.shape);
  return tensors;
}

Result<models::FlatModel> restructured(models::FlatModel& model, const models::StructureOptions& structure) {
  return with_values_of(tensors_of(model), model, structure);
}

Result<models::FlatModel> fused(models::FlatModel& model) {
  torch::NoGradGuard no_grad;
  auto copy = TRY(restructured(model, model.spec().structure));
  if (!has_branches(copy.network())) return copy;
  copy.network().fuse();
  auto spec = copy.spec();
  spec.structure.fused = true;
  const auto structure = TRY(models::with_shapes_of(spec, copy.network()));
  std::map<std::string, at::Tensor> values;
  for (const auto& item : copy.network().named_parameters()) values[item.key()] = item.value();
  for (const auto& item : copy.network().named_buffers()) values[item.key()] = item.value();
  return with_values_of(values, copy, structure);
}

bool begins_with(const std::string& layer, const std::vector<std::string>& beginnings) {
  return std::ranges::any_of(beginnings, [&](const auto& start) { return layer.starts_with(start); });
}

}  // namespace preceptor::compression
