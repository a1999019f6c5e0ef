#include "deploy/onnx.h"

#include <onnx/checker.h>

#include "common/version.h"
#include "deploy/onnx_graph.h"

namespace preceptor::deploy {
namespace {

/// Writes a graph's input or output; the batch is a side without a number.
void declare(onnx::ValueInfoProto& made, const std::string& name, const models::GraphValue& value) {
  made.set_name(name);
  auto& type = *made.mutable_type()->mutable_tensor_type();
  type.set_elem_type(onnx::TensorProto::FLOAT);
  for (std::size_t i = 0; i < value.shape.size(); ++i) {
    auto& side = *type.mutable_shape()->add_dim();
    if (value.batched[i]) side.set_dim_param("batch");
    else side.set_dim_value(value.shape[i]);
  }
}

}  // namespace

Result<std::string> to_onnx(const models::Graph& graph, const std::string& name, const std::map<std::string, std::string>& metadata) {
  onnx::ModelProto model;
  model.set_ir_version(kOnnxIr);
  model.set_producer_name("preceptor");
  model.set_producer_version(kVersion);
  auto& opset = *model.add_opset_import();
  opset.set_domain("");
  opset.set_version(kOnnxOpset);
  for (const auto& [key, text] : metadata) {
    auto& entry = *model.add_metadata_props();
    entry.set_key(key);
    entry.set_value(text);
  }
  auto& target = *model.mutable_graph();
  target.set_name(name);
  declare(*target.add_input(), "images", graph.values[std::size_t(graph.image)]);
  declare(*target.add_output(), "logits", graph.values[std::size_t(graph.logits)]);
  internal::OnnxGraph nodes(graph, target);
  for (const auto& node : graph.nodes) {
    const auto found = internal::translations().find(node.op);
    if (found == internal::translations().end())
      return fail(Code::kInvalid, "{}: its operator '{}' has no form in ONNX here; deploy/onnx_operators.cpp is where one is added", name, node.op);
    if (auto done = found->second(nodes, node); !done) return in(name + ": " + node.op, done.error());
  }
  try {
    onnx::checker::check_model(model);
  } catch (const std::exception& e) {
    return fail(Code::kInvalid, "{}: ONNX's checker refuses the file: {}", name, e.what());
  }
  return model.SerializeAsString();
}

}  // namespace preceptor::deploy
