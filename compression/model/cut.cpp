#include "compression/model/cut.h"

#include <torch/torch.h>

#include "models/structure.h"

namespace preceptor::compression {
namespace {

using models::Node;

/// 1 or 0 for each unit; 1 at the end, where −1 points.
at::Tensor mask_of(const Kept& kept) {
  auto mask = torch::ones({std::int64_t(kept.size()) + 1});
  for (std::size_t i = 0; i < kept.size(); ++i)
    if (!kept[i]) mask[std::int64_t(i)] = 0;
  return mask;
}

/// Indices of each dimension of each parameter that stay, where not all do.
std::map<std::string, std::map<std::int64_t, at::Tensor>> selections(const Channels& channels, const Kept& kept) {
  std::map<std::string, std::map<std::int64_t, at::Tensor>> stays;  // as 0 and 1
  const auto mask = mask_of(kept);
  const auto last = mask.size(0) - 1;
  for (const auto& group : channels.groups)
    for (const auto& slot : group.slots) {
      const auto of_slot = mask.index_select(0, torch::where(slot.unit < 0, last, slot.unit + group.first));
      auto& all = stays[slot.parameter][slot.dim];
      all = all.defined() ? all * of_slot : of_slot;
    }
  for (auto& [name, by_dim] : stays) {
    std::erase_if(by_dim, [](const auto& entry) { return entry.second.all().template item<bool>(); });
    for (auto& [dim, stay] : by_dim) stay = stay.nonzero().squeeze(1);
  }
  return stays;
}

class Masked {
 public:
  Masked(const Channels& channels, const Kept& kept) : channels_(channels), mask_(mask_of(kept)) {}

  /// Zero what is gone. Values at a batch have the graph's shape but for the dimensions that grow with it.
  at::Tensor apply(int value, at::Tensor tensor) const {
    if (!tensor.is_floating_point()) return tensor;
    for (const auto& units : channels_.of_value[std::size_t(value)]) {
      auto mask = mask_.index({torch::where(units < 0, mask_.size(0) - 1, units)});
      for (std::int64_t d = 0; d < mask.dim(); ++d)  // a batch folded into other elements of the dimension
        if (mask.size(d) > 1 && mask.size(d) != tensor.size(d)) {
          std::vector<std::int64_t> times(std::size_t(mask.dim()), 1);
          times[std::size_t(d)] = tensor.size(d) / mask.size(d);
          mask = mask.repeat(times);
        }
      tensor = tensor.masked_fill(mask.eq(0), 0);  // also a quotient of two masked values
    }
    return tensor;
  }

  /// Indices along a dimension of a value that stay.
  at::Tensor staying(int value, std::int64_t dim, std::int64_t size) const {
    auto stays = torch::ones({size});
    for (const auto& units : channels_.of_value[std::size_t(value)]) {
      if (units.size(dim) != size) continue;
      const auto along = units.movedim(dim, 0).reshape({size, -1}).select(1, 0);
      stays = stays * mask_.index_select(0, torch::where(along < 0, mask_.size(0) - 1, along));
    }
    return stays.nonzero().squeeze(1);
  }

 private:
  const Channels& channels_;
  at::Tensor mask_;
};

/// A norm over channels, of those that stay.
at::Tensor norm(const Node& node, std::vector<at::Tensor> inputs, const Masked& masked) {
  const auto dim = node.op == "layer_norm" ? inputs[0].dim() - 1 : 1;
  const auto whole = inputs[0];
  const auto stays = masked.staying(node.inputs()[0], dim, whole.size(dim));
  inputs[0] = whole.index_select(dim, stays);
  for (std::size_t i = 1; i < inputs.size(); ++i) inputs[i] = inputs[i].index_select(0, stays);
  auto smaller = node;
  for (auto& argument : smaller.arguments) {
    if (argument.name == "normalized_shape") argument.constant = std::vector<std::int64_t>{stays.size(0)};
    if (argument.name == "num_groups" && argument.constant.toInt() == whole.size(1)) argument.constant = stays.size(0);
  }
  const auto kept = models::run_node(smaller, inputs, whole.size(0))[0];
  return torch::zeros_like(whole).index_copy(dim, stays, kept);
}

}  // namespace

Result<models::FlatModel> cut(models::FlatModel& model, const Channels& channels, const Kept& kept) {
  torch::NoGradGuard no_grad;
  const auto stays = selections(channels, kept);
  auto spec = model.spec();
  const auto old = model.store();
  std::vector<at::Tensor> tensors;
  for (const auto& piece : model.space().pieces()) {
    auto tensor = torch::from_blob(const_cast<float*>(old.data()) + piece.offset, piece.shape);
    if (const auto found = stays.find(piece.name); found != stays.end() && !found->second.empty()) {
      for (const auto& [dim, index] : found->second) tensor = tensor.index_select(dim, index);
      spec.structure.shapes[piece.name] = models::shape_text(tensor.sizes());
    }
    tensors.push_back(tensor.reshape({-1}));
  }
  auto smaller = TRY(models::FlatModel::create(spec, model.device().is_cuda() ? "cuda" : "cpu"));
  const auto values = torch::cat(tensors);
  TORCH_CHECK(std::size_t(values.numel()) == smaller.space().size(), "cut: ", values.numel(), " values for ", smaller.space().size());
  smaller.load({values.data_ptr<float>(), std::size_t(values.numel())});
  smaller.network().train(model.network().is_training());
  return smaller;
}

at::Tensor run_masked(const Channels& channels, const Kept& kept, const at::Tensor& images) {
  torch::NoGradGuard no_grad;
  const Masked masked(channels, kept);
  const auto& graph = channels.graph;
  std::vector<at::Tensor> tensors(graph.values.size());
  for (std::size_t v = 0; v < tensors.size(); ++v) tensors[v] = graph.values[v].tensor;
  tensors[std::size_t(graph.image)] = images;
  for (const auto& node : graph.nodes) {
    std::vector<at::Tensor> inputs;
    for (const int value : node.inputs()) inputs.push_back(tensors[std::size_t(value)]);
    const bool over_channels = node.op == "layer_norm" || node.op == "group_norm";
    const auto outputs = over_channels ? std::vector{norm(node, inputs, masked)} : models::run_node(node, inputs, images.size(0));
    for (std::size_t i = 0; i < node.outputs.size(); ++i) {
      const int value = node.outputs[i];
      tensors[std::size_t(value)] = masked.apply(value, outputs[i]);
    }
  }
  return tensors[std::size_t(graph.logits)];
}

}  // namespace preceptor::compression
