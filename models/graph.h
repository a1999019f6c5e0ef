#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include "models/model.h"

/// A network as the operators that its forward pass runs in evaluation mode: what pruning follows channels through, and
/// what export, quantisation and inference start from.
namespace preceptor::models {

/// A tensor that an operator takes or gives.
struct GraphValue {
  enum class Kind { kImage, kParameter, kConstant, kComputed };
  Kind kind = Kind::kComputed;
  std::string name;                 ///< of a parameter or buffer; else "v<number>"
  std::vector<std::int64_t> shape;  ///< at batch 1
  std::vector<bool> batched;        ///< by dimension: whether it grows with the batch
  at::ScalarType type = at::kFloat;
  at::Tensor tensor;  ///< of parameters (the network's own, not a copy) and constants
};

/// One argument of an operator, in the order of its schema: a tensor, a list of tensors, or anything else.
struct Argument {
  std::string name;         ///< the schema's: "input", "stride"
  std::vector<int> values;  ///< into Graph::values; −1: None
  bool is_list = false;     ///< of tensors
  c10::IValue constant;     ///< where `values` is empty
};

/// One call of an operator of LibTorch ("convolution", "relu") or of ours ("preceptor::selective_scan").
struct Node {
  std::string op, overload;
  std::vector<Argument> arguments;
  std::vector<int> outputs;

  const Argument& argument(std::string_view name) const;  ///< throws std::logic_error where there is none
  int input(std::string_view name) const { return argument(name).values.at(0); }
  const c10::IValue& attribute(std::string_view name) const { return argument(name).constant; }
  std::vector<std::int64_t> ints(std::string_view name) const { return attribute(name).toIntVector(); }
  std::vector<int> inputs() const;  ///< every tensor it takes, in order, without None
};

/// Integers among attributes that grow with the batch are written as times_batch(k): k at batch 1.
constexpr std::int64_t kTimesBatch = -(std::int64_t(1) << 40);
constexpr std::int64_t times_batch(std::int64_t k) { return kTimesBatch - k; }
constexpr std::int64_t at_batch(std::int64_t value, std::int64_t batch) { return value <= kTimesBatch ? (kTimesBatch - value) * batch : value; }

struct Graph {
  std::vector<GraphValue> values;
  std::vector<Node> nodes;  ///< each after those that it takes values from
  int image = 0;            ///< the network's input, [1, C, S, S]
  int logits = 0;           ///< its output

  /// Nodes that take a value, by value.
  std::vector<std::vector<int>> consumers() const;
};

/// Traces the network's forward pass in evaluation mode; the network stays as it was. Copies and changes of memory format
/// are left out. Error: kInvalid when the passes at two batch sizes are not the same operators.
Result<Graph> trace(Model& network, const TaskOptions& task);

/// Runs one node on tensors, in the order of Node::inputs(), through LibTorch.
std::vector<at::Tensor> run_node(const Node& node, std::span<const at::Tensor> inputs, std::int64_t batch);

/// Runs the whole graph, node by node, through LibTorch: [B, C, S, S] → logits. The reference for every other way.
at::Tensor run_graph(const Graph& graph, const at::Tensor& images);

/// Computes what does not depend on the image, once: such values become constants, their nodes go. Batch norms behind a
/// convolution or linear layer are folded into it (float64, one rounding). The graph no longer shares the network's tensors.
void freeze(Graph& graph);

/// The graph as text, a line a node. For people.
std::string to_text(const Graph& graph);

}  // namespace preceptor::models
