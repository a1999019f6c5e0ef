#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/torch.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "models/graph.h"

namespace preceptor::models {
namespace {

using torch::jit::Value;
using Kind = GraphValue::Kind;

constexpr std::int64_t kBatches[] = {2, 3};  // two, so that what grows with the batch shows itself

/// Named tensors of the network in a fixed order.
struct Parameters {
  std::vector<std::string> names;
  std::vector<at::Tensor> tensors;
};

Parameters parameters_of(Model& network) {
  Parameters all;
  const auto add = [&](const auto& items) {
    for (const auto& item : items) {
      if (!item.value().defined() || !item.value().is_floating_point()) continue;
      all.names.push_back(item.key());
      all.tensors.push_back(item.value());
    }
  };
  add(network.named_parameters());
  add(network.named_buffers());
  return all;
}

std::shared_ptr<torch::jit::Graph> record(Model& network, const Parameters& parameters, const at::Tensor& images) {
  torch::jit::Stack inputs{images};
  for (const auto& tensor : parameters.tensors) inputs.emplace_back(tensor);
  auto [state, outputs] = torch::jit::tracer::trace(
      inputs, [&](torch::jit::Stack stack) { return torch::jit::Stack{network.forward(stack[0].toTensor())}; },
      [](const at::Tensor&) { return std::string(); }, /*strict=*/true, /*force_outplace=*/true);
  torch::jit::ConstantPropagation(state->graph);
  torch::jit::EliminateDeadCode(state->graph);
  return state->graph;
}

/// Leaves values as they are: copies, changes of memory format, gradients' ends.
bool hands_on(const torch::jit::Node& node) {
  // aten::to among them: the zoo computes in float32 only.
  static const std::set<std::string> kNames{"aten::contiguous", "aten::clone", "aten::detach", "aten::alias", "aten::dropout", "aten::to"};
  return kNames.contains(node.kind().toQualString());
}

bool is_constant(const Value& value) { return value.node()->kind() == c10::prim::Constant; }

class Translation {
 public:
  Translation(const Parameters& parameters, const torch::jit::Graph& first, const torch::jit::Graph& second)
      : first_(first), second_(second), parameters_(parameters) {}

  Result<Graph> run() {
    const auto inputs = first_.inputs(), others = second_.inputs();
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const int id = add(inputs[i], others[i], i == 0 ? Kind::kImage : Kind::kParameter);
      if (i == 0) continue;
      auto& value = graph_.values[std::size_t(id)];
      value.name = parameters_.names[i - 1];
      value.tensor = parameters_.tensors[i - 1];
      value.shape = value.tensor.sizes().vec();
      value.batched.assign(value.shape.size(), false);
    }
    auto other = second_.nodes().begin();
    for (const auto* node : first_.nodes()) {
      if (other == second_.nodes().end() || node->kind() != other->kind() || node->inputs().size() != other->inputs().size() ||
          node->outputs().size() != other->outputs().size())
        return fail(Code::kInvalid, "the network does other things for two images than for three; it has no one graph");
      TRY(translate(*node, **other));
      ++other;
    }
    graph_.image = 0;
    graph_.logits = ids_.at(first_.outputs()[0]);
    drop_unused();
    return std::move(graph_);
  }

 private:
  int add(const Value* value, const Value* other, Kind kind) {
    const int id = int(graph_.values.size());
    GraphValue made{kind, fmt::format("v{}", id), {}, {}, at::kFloat, {}};
    const auto type = value->type()->cast<c10::TensorType>(), other_type = other->type()->cast<c10::TensorType>();
    if (type && other_type && type->sizes().concrete_sizes()) {
      made.shape = *type->sizes().concrete_sizes();
      const auto grown = *other_type->sizes().concrete_sizes();
      for (std::size_t i = 0; i < made.shape.size(); ++i) {
        made.batched.push_back(made.shape[i] != grown[i]);
        if (made.batched.back()) made.shape[i] /= kBatches[0];
      }
      if (type->scalarType()) made.type = *type->scalarType();
    }
    graph_.values.push_back(std::move(made));
    ids_[value] = id;
    return id;
  }

  /// The value's number; constants get theirs here.
  int id_of(const Value* value, const Value* other) {
    if (const auto found = ids_.find(value); found != ids_.end()) return found->second;
    TORCH_CHECK(is_constant(*value), "trace: a value from nowhere: ", value->debugName());
    const auto constant = torch::jit::toIValue(value);
    if (!constant || constant->isNone()) return -1;
    const int id = add(value, other, Kind::kConstant);
    auto& made = graph_.values[std::size_t(id)];
    made.tensor = constant->toTensor();
    made.shape = made.tensor.sizes().vec();
    made.batched.assign(made.shape.size(), false);
    made.type = made.tensor.scalar_type();
    return id;
  }

  /// A constant of both graphs; its integers that differ grow with the batch.
  static c10::IValue merge(const c10::IValue& a, const c10::IValue& b) {
    const auto one = [](std::int64_t x, std::int64_t y) { return x == y ? x : times_batch(x / kBatches[0]); };
    if (a.isInt()) return one(a.toInt(), b.toInt());
    if (!a.isIntList()) return a;
    auto ints = a.toIntVector();
    const auto others = b.toIntVector();
    for (std::size_t i = 0; i < ints.size() && i < others.size(); ++i) ints[i] = one(ints[i], others[i]);
    return ints;
  }

  static c10::IValue constant_of(const Value* value) {
    if (value->node()->kind() != c10::prim::ListConstruct) return *torch::jit::toIValue(value);
    std::vector<std::int64_t> ints;  // of numbers: lists of tensors do not come here
    for (const auto* item : value->node()->inputs()) ints.push_back(torch::jit::toIValue(item)->toInt());
    return ints;
  }

  Result<void> translate(const torch::jit::Node& node, const torch::jit::Node& other) {
    if (node.kind() == c10::prim::Constant || node.kind() == c10::prim::ListConstruct) return {};
    if (node.kind() == c10::prim::ListUnpack) {  // names the outputs of the node before
      auto& maker = graph_.nodes.at(makers_.at(node.input()));
      for (std::size_t i = 0; i < node.outputs().size(); ++i) maker.outputs.push_back(add(node.outputs()[i], other.outputs()[i], Kind::kComputed));
      return {};
    }
    if (hands_on(node)) {
      ids_[node.output()] = id_of(node.inputs()[0], other.inputs()[0]);
      return {};
    }
    const auto* schema = node.maybeSchema();
    if (!schema) return fail(Code::kInvalid, "trace: {} is no operator", node.kind().toQualString());
    Node made{schema->name().starts_with("aten::") ? schema->name().substr(6) : schema->name(), schema->overload_name(), {}, {}};
    auto arguments = node.inputs().size();
    if (made.op == "_convolution") made.op = "convolution", arguments = 9;  // the rest are switches of the libraries beneath
    for (std::size_t i = 0; i < arguments; ++i) {
      const auto *value = node.inputs()[i], *pair = other.inputs()[i];
      Argument argument{schema->arguments()[i].name(), {}, false, {}};
      const auto& type = *schema->arguments()[i].type();
      const bool tensor = type.isSubtypeOf(*c10::TensorType::get()) || type.str() == "Tensor?";
      const bool list = type.kind() == c10::TypeKind::ListType && type.str().starts_with("Tensor");
      if (list) {
        argument.is_list = true;
        for (std::size_t k = 0; k < value->node()->inputs().size(); ++k)
          argument.values.push_back(id_of(value->node()->inputs()[k], pair->node()->inputs()[k]));
      } else if (tensor) {
        argument.values.push_back(id_of(value, pair));
      } else {
        argument.constant = merge(constant_of(value), constant_of(pair));
      }
      made.arguments.push_back(std::move(argument));
    }
    for (std::size_t i = 0; i < node.outputs().size(); ++i) {
      if (node.outputs()[i]->type()->kind() == c10::TypeKind::ListType)
        makers_[node.outputs()[i]] = graph_.nodes.size();
      else
        made.outputs.push_back(add(node.outputs()[i], other.outputs()[i], Kind::kComputed));
    }
    graph_.nodes.push_back(std::move(made));
    return {};
  }

  /// Numbers only the values that nodes use.
  void drop_unused() {
    std::vector<int> renamed(graph_.values.size(), -1);
    std::vector<GraphValue> kept;
    const auto keep = [&](int value) {
      if (value >= 0 && renamed[std::size_t(value)] < 0) {
        renamed[std::size_t(value)] = int(kept.size());
        kept.push_back(std::move(graph_.values[std::size_t(value)]));
      }
      return value < 0 ? value : renamed[std::size_t(value)];
    };
    graph_.image = keep(graph_.image);
    for (auto& node : graph_.nodes) {
      for (auto& argument : node.arguments)
        for (auto& value : argument.values) value = keep(value);
      for (auto& value : node.outputs) value = keep(value);
    }
    graph_.logits = keep(graph_.logits);
    graph_.values = std::move(kept);
  }

  const torch::jit::Graph &first_, &second_;
  const Parameters& parameters_;
  Graph graph_;
  std::unordered_map<const Value*, int> ids_;
  std::unordered_map<const Value*, std::size_t> makers_;  ///< lists of tensors → the node that makes them
};

}  // namespace

Result<Graph> trace(Model& network, const TaskOptions& task) {
  const bool training = network.is_training();
  network.eval();
  torch::NoGradGuard no_grad;
  const auto parameters = parameters_of(network);
  std::shared_ptr<torch::jit::Graph> graphs[2];
  for (int i : {0, 1})
    graphs[i] = record(network, parameters, torch::zeros({kBatches[i], task.channels, task.image_size, task.image_size}));
  network.train(training);
  return Translation(parameters, *graphs[0], *graphs[1]).run();
}

}  // namespace preceptor::models
