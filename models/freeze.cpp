#include <torch/torch.h>

#include <algorithm>

#include "models/graph.h"

namespace preceptor::models {
namespace {

using Kind = GraphValue::Kind;

bool fixed(const GraphValue& value) { return value.kind == Kind::kConstant || value.kind == Kind::kParameter; }

/// Evaluates nodes that take only what is fixed.
void fold_constants(Graph& graph) {
  std::erase_if(graph.nodes, [&](const Node& node) {
    std::vector<at::Tensor> inputs;
    for (const int value : node.inputs()) {
      if (!fixed(graph.values[std::size_t(value)])) return false;
      inputs.push_back(graph.values[std::size_t(value)].tensor);
    }
    for (const int value : node.outputs)
      for (const bool grows : graph.values[std::size_t(value)].batched)
        if (grows) return false;
    const auto outputs = run_node(node, inputs, 1);
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      auto& value = graph.values[std::size_t(node.outputs[i])];
      value.kind = Kind::kConstant;
      value.tensor = outputs[i].contiguous();
    }
    return true;
  });
}

/// What batch norm does to each channel in evaluation mode, in float64.
struct Affine {
  at::Tensor scale, shift;
};

Affine affine_of(const Graph& graph, const Node& norm) {
  const auto tensor = [&](const char* name) { return graph.values[std::size_t(norm.input(name))].tensor.to(at::kDouble); };
  const auto scale = tensor("weight") / (tensor("running_var") + norm.attribute("eps").toDouble()).sqrt();
  return {scale, tensor("bias") - tensor("running_mean") * scale};
}

int add_constant(Graph& graph, const std::string& name, const at::Tensor& tensor) {
  graph.values.push_back({Kind::kConstant, name, tensor.sizes().vec(), std::vector<bool>(std::size_t(tensor.dim())), tensor.scalar_type(), tensor});
  return int(graph.values.size()) - 1;
}

/// Into the weight and bias of the convolution or linear layer before, if nobody else takes its output.
bool fold_into_maker(Graph& graph, Node& maker, const Node& norm) {
  auto& weight = maker.arguments[1].values[0];
  auto& bias = maker.arguments[2];
  const auto [scale, shift] = affine_of(graph, norm);
  const auto old = graph.values[std::size_t(weight)].tensor.to(at::kDouble);
  auto shape = std::vector<std::int64_t>(std::size_t(old.dim()), 1);
  shape[0] = -1;
  auto moved = shift;
  if (!bias.values.empty() && bias.values[0] >= 0) moved = moved + graph.values[std::size_t(bias.values[0])].tensor.to(at::kDouble) * scale;
  const auto name = graph.values[std::size_t(weight)].name;
  weight = add_constant(graph, name, (old * scale.view(shape)).to(at::kFloat));
  bias.values = {add_constant(graph, name + ".bias", moved.to(at::kFloat))};
  maker.outputs = norm.outputs;
  return true;
}

void fold_norms(Graph& graph) {
  const auto users = graph.consumers();
  std::vector<int> maker(graph.values.size(), -1);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n)
    for (const int value : graph.nodes[n].outputs) maker[std::size_t(value)] = int(n);
  std::vector<bool> gone(graph.nodes.size());
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const auto& norm = graph.nodes[n];
    if (norm.op != "batch_norm" || norm.attribute("training").toBool()) continue;
    const auto from = norm.input("input");
    const int before = maker[std::size_t(from)];
    if (before < 0 || users[std::size_t(from)].size() != 1 || from == graph.logits) continue;
    auto& layer = graph.nodes[std::size_t(before)];
    const bool takes = (layer.op == "convolution" && !layer.attribute("transposed").toBool()) || layer.op == "linear";
    if (!takes || !fixed(graph.values[std::size_t(layer.input("weight"))])) continue;
    gone[n] = fold_into_maker(graph, layer, norm);
    maker[std::size_t(norm.outputs[0])] = before;
  }
  std::size_t n = 0;
  std::erase_if(graph.nodes, [&](const Node&) { return gone[n++]; });
}

}  // namespace

void freeze(Graph& graph) {
  torch::NoGradGuard no_grad;
  for (auto& value : graph.values)
    if (value.kind == Kind::kParameter) value.tensor = value.tensor.clone();
  fold_constants(graph);
  fold_norms(graph);
}

}  // namespace preceptor::models
