#include "models/graph.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/torch.h>

#include <algorithm>
#include <stdexcept>

namespace preceptor::models {
namespace {

/// Lists of integers with batches put in.
c10::IValue with_batch(const c10::IValue& value, std::int64_t batch) {
  if (value.isInt()) return at_batch(value.toInt(), batch);
  if (!value.isIntList()) return value;
  auto ints = value.toIntVector();
  for (auto& i : ints) i = at_batch(i, batch);
  return ints;
}

std::string text_of(const c10::IValue& value) {
  if (value.isNone()) return "none";
  std::ostringstream out;
  out << value;
  return out.str();
}

}  // namespace

const Argument& Node::argument(std::string_view name) const {
  for (const auto& argument : arguments)
    if (argument.name == name) return argument;
  throw std::logic_error(fmt::format("operator {} has no argument '{}'", op, name));
}

std::vector<int> Node::inputs() const {
  std::vector<int> all;
  for (const auto& argument : arguments)
    for (const int value : argument.values)
      if (value >= 0) all.push_back(value);
  return all;
}

std::vector<std::vector<int>> Graph::consumers() const {
  std::vector<std::vector<int>> by_value(values.size());
  for (std::size_t n = 0; n < nodes.size(); ++n)
    for (const int value : nodes[n].inputs()) by_value[std::size_t(value)].push_back(int(n));
  return by_value;
}

std::vector<at::Tensor> run_node(const Node& node, std::span<const at::Tensor> inputs, std::int64_t batch) {
  const auto name = node.op.find("::") == std::string::npos ? "aten::" + node.op : node.op;
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow(name.c_str(), node.overload.c_str());
  torch::jit::Stack stack;
  std::size_t next = 0;
  for (const auto& argument : node.arguments) {
    if (argument.is_list) {
      c10::List<at::Tensor> list;
      for (std::size_t i = 0; i < argument.values.size(); ++i) list.push_back(inputs[next++]);
      stack.emplace_back(std::move(list));
    } else if (argument.values.empty()) {
      stack.push_back(with_batch(argument.constant, batch));
    } else if (argument.values[0] < 0) {
      stack.emplace_back();
    } else {
      stack.emplace_back(inputs[next++]);
    }
  }
  op.callBoxed(stack);
  std::vector<at::Tensor> outputs;
  for (const auto& value : stack) {
    if (value.isTensorList())
      for (const auto& tensor : value.toTensorVector()) outputs.push_back(tensor);
    else
      outputs.push_back(value.toTensor());
  }
  return outputs;
}

at::Tensor run_graph(const Graph& graph, const at::Tensor& images) {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> tensors(graph.values.size());
  for (std::size_t v = 0; v < tensors.size(); ++v) tensors[v] = graph.values[v].tensor;
  tensors[std::size_t(graph.image)] = images;
  for (const auto& node : graph.nodes) {
    std::vector<at::Tensor> inputs;
    for (const int value : node.inputs()) inputs.push_back(tensors[std::size_t(value)]);
    const auto outputs = run_node(node, inputs, images.size(0));
    for (std::size_t i = 0; i < node.outputs.size(); ++i) tensors[std::size_t(node.outputs[i])] = outputs[i];
  }
  return tensors[std::size_t(graph.logits)];
}

std::string to_text(const Graph& graph) {
  std::string text;
  const auto named = [&](int value) {
    if (value < 0) return std::string("none");
    const auto& v = graph.values[std::size_t(value)];
    return fmt::format("{}[{}]", v.name, fmt::join(v.shape, ","));
  };
  for (const auto& node : graph.nodes) {
    std::vector<std::string> outputs, arguments;
    for (const int value : node.outputs) outputs.push_back(named(value));
    for (const auto& argument : node.arguments) {
      std::vector<std::string> values;
      for (const int value : argument.values) values.push_back(named(value));
      arguments.push_back(argument.values.empty() && !argument.is_list ? fmt::format("{}={}", argument.name, text_of(argument.constant))
                                                                       : fmt::format("{}", fmt::join(values, " ")));
    }
    text += fmt::format("{} = {}({})\n", fmt::join(outputs, ", "), node.op, fmt::join(arguments, ", "));
  }
  return text;
}

}  // namespace preceptor::models
