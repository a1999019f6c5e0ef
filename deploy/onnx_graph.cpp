#include "deploy/onnx_graph.h"

#include <torch/torch.h>

namespace preceptor::deploy::internal {
namespace {

constexpr std::int64_t kSmall = 16;  ///< values of a constant that is written once, however often it is asked for

bool grows(std::int64_t side) { return side <= models::kTimesBatch; }

onnx::TensorProto::DataType type_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return onnx::TensorProto::FLOAT;
    case at::kChar: return onnx::TensorProto::INT8;
    case at::kByte: return onnx::TensorProto::UINT8;
    case at::kInt: return onnx::TensorProto::INT32;
    case at::kLong: return onnx::TensorProto::INT64;
    default: TORCH_CHECK(false, "ONNX: no constants of ", tensor.scalar_type());
  }
}

struct SetAttribute {
  onnx::AttributeProto& to;
  void operator()(std::int64_t value) const {
    to.set_type(onnx::AttributeProto::INT);
    to.set_i(value);
  }
  void operator()(double value) const {
    to.set_type(onnx::AttributeProto::FLOAT);
    to.set_f(float(value));
  }
  void operator()(const std::string& value) const {
    to.set_type(onnx::AttributeProto::STRING);
    to.set_s(value);
  }
  void operator()(const OnnxNodes::Ints& values) const {
    to.set_type(onnx::AttributeProto::INTS);
    to.mutable_ints()->Add(values.begin(), values.end());
  }
  void operator()(const onnx::GraphProto* value) const {
    to.set_type(onnx::AttributeProto::GRAPH);
    *to.mutable_g() = *value;
  }
};

}  // namespace

std::string OnnxNodes::add(const char* op, const Names& inputs, const Attributes& attributes) {
  const auto output = fresh_name();
  add_named(op, inputs, {output}, attributes);
  return output;
}

void OnnxNodes::add_named(const char* op, const Names& inputs, const Names& outputs, const Attributes& attributes) {
  auto& node = *graph_.add_node();
  node.set_op_type(op);
  node.set_name(outputs[0]);
  for (const auto& input : inputs) node.add_input(input);
  for (const auto& output : outputs) node.add_output(output);
  for (const auto& attribute : attributes) {
    auto& made = *node.add_attribute();
    made.set_name(attribute.name);
    std::visit(SetAttribute{made}, attribute.value);
  }
}

std::string OnnxNodes::constant(const at::Tensor& tensor, const std::string& wanted_name) {
  const auto values = (tensor.scalar_type() == at::kDouble ? tensor.to(at::kFloat) : tensor).contiguous();
  const std::string bytes(static_cast<const char*>(values.data_ptr()), values.nbytes());
  std::string key;
  if (wanted_name.empty() && values.numel() <= kSmall) {
    key = fmt::format("{} {} {}", int(type_of(values)), fmt::join(values.sizes(), ","), bytes);
    if (const auto found = known_.find(key); found != known_.end()) return found->second;
  }
  auto name = wanted_name.empty() || taken_.contains(wanted_name) ? fresh_name() : wanted_name;
  taken_.insert(name);
  auto& made = *graph_.add_initializer();
  made.set_name(name);
  made.set_data_type(type_of(values));
  for (const auto side : values.sizes()) made.add_dims(side);
  made.set_raw_data(bytes);
  if (!key.empty()) known_[key] = name;
  return name;
}

std::string OnnxNodes::scalar(double value) { return constant(torch::tensor(float(value))); }
std::string OnnxNodes::ints(const Ints& values) { return constant(torch::tensor(values, at::kLong)); }

OnnxGraph::OnnxGraph(const models::Graph& source, onnx::GraphProto& target)
    : OnnxNodes(target, "t"), source_(source), names_(source.values.size()), makers_(source.values.size()), used_(source.values.size()) {
  for (const auto& node : source.nodes) {
    for (const int id : node.outputs) makers_[std::size_t(id)] = &node;
    for (const int id : node.inputs()) used_[std::size_t(id)] = true;
  }
  used_[std::size_t(source.logits)] = true;
  for (std::size_t id = 0; id < names_.size(); ++id)
    if (!fixed(int(id))) names_[id] = source.values[id].name;
  names_[std::size_t(source.image)] = "images";
  names_[std::size_t(source.logits)] = "logits";
}

std::string OnnxGraph::name(int id) {
  auto& known = names_[std::size_t(id)];
  if (known.empty()) known = constant(value(id).tensor, value(id).name);
  return known;
}

const models::Node* OnnxGraph::maker(int id) const { return makers_[std::size_t(id)]; }
bool OnnxGraph::used(int id) const { return used_[std::size_t(id)]; }

Result<void> OnnxGraph::define(const models::Node& node, const char* op, const Names& inputs, const Attributes& attributes) {
  add_named(op, inputs, {name(node.outputs[0])}, attributes);
  return {};
}

std::string OnnxGraph::shape(const Ints& sides) {
  if (std::ranges::none_of(sides, grows)) return ints(sides);
  if (batch_.empty()) batch_ = add("Shape", {"images"}, {{"start", std::int64_t(0)}, {"end", std::int64_t(1)}});
  Names parts;
  for (const auto side : sides) {
    if (!grows(side)) parts.push_back(ints({side}));
    else if (const auto times = models::at_batch(side, 1); times == 1) parts.push_back(batch_);
    else parts.push_back(add("Mul", {batch_, ints({times})}));
  }
  return parts.size() == 1 ? parts[0] : add("Concat", parts, {{"axis", std::int64_t(0)}});
}

std::string OnnxGraph::reshape_to(const Ints& sides) {
  auto open = sides;
  std::ranges::replace_if(open, grows, -1);  // one at most: a batch is one axis
  return ints(open);
}

OnnxNodes::Ints OnnxGraph::sides(int id) const {
  auto sides = value(id).shape;
  for (std::size_t i = 0; i < sides.size(); ++i)
    if (value(id).batched[i]) sides[i] = models::times_batch(sides[i]);
  return sides;
}

}  // namespace preceptor::deploy::internal
