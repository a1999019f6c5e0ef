#pragma once
#include <onnx/onnx_pb.h>

#include <set>
#include <variant>

#include "models/graph.h"

/// What operators' translations write with.
namespace preceptor::deploy::internal {

/// Nodes of one ONNX graph: the network's, or the body of a loop inside it. Values are names.
class OnnxNodes {
 public:
  using Names = std::vector<std::string>;
  using Ints = std::vector<std::int64_t>;
  struct Attribute {
    const char* name;
    std::variant<std::int64_t, double, std::string, Ints, const onnx::GraphProto*> value;
  };
  using Attributes = std::vector<Attribute>;

  /// prefix: of the names made here; they are visible in the bodies inside, so it must differ there.
  OnnxNodes(onnx::GraphProto& graph, std::string prefix) : graph_(graph), prefix_(std::move(prefix)) {}

  /// One node with one output, named by itself or by the caller.
  std::string add(const char* op, const Names& inputs, const Attributes& attributes = {});
  void add_named(const char* op, const Names& inputs, const Names& outputs, const Attributes& attributes = {});

  /// Values that the file holds: float32, int8, uint8, int32 or int64; float64 becomes float32.
  std::string constant(const at::Tensor& tensor, const std::string& wanted_name = "");
  std::string scalar(double value);      ///< float32 []
  std::string ints(const Ints& values);  ///< int64 [n]
  std::string fresh_name() { return fmt::format("{}{}", prefix_, next_++); }
  onnx::GraphProto& graph() { return graph_; }

 private:
  onnx::GraphProto& graph_;
  std::string prefix_;
  int next_ = 0;
  std::set<std::string> taken_;
  std::map<std::string, std::string> known_;  ///< small constants by what they hold
};

/// Nodes of the network's graph, and the names that its traced values have there.
class OnnxGraph : public OnnxNodes {
 public:
  OnnxGraph(const models::Graph& source, onnx::GraphProto& target);

  const models::GraphValue& value(int id) const { return source_.values.at(std::size_t(id)); }
  std::string name(int id);                         ///< of a value; constants are written when first asked for
  const models::Node* maker(int id) const;          ///< of a computed value; else null
  bool used(int id) const;                          ///< does any node take it, or is it the logits?
  bool fixed(int id) const { return value(id).tensor.defined(); }

  /// A node whose output is the traced node's first one. Returns success, for translations to end with.
  Result<void> define(const models::Node& node, const char* op, const Names& inputs, const Attributes& attributes = {});
  Ints sides(int id) const;                   ///< of a traced value, with times_batch() among them
  std::string shape(const Ints& sides);       ///< int64 tensor of such sides
  std::string reshape_to(const Ints& sides);  ///< the same as Reshape takes it: constant, the batch left open

 private:
  const models::Graph& source_;
  std::vector<std::string> names_;
  std::vector<const models::Node*> makers_;
  std::vector<bool> used_;
  std::string batch_;
};

/// Writes one traced node. Error: kInvalid naming what of it has no form in ONNX.
using Translation = std::function<Result<void>(OnnxGraph&, const models::Node&)>;
/// By LibTorch's name of the operator.
const std::map<std::string, Translation>& translations();

Result<void> translate_convolution(OnnxGraph& g, const models::Node& node);
Result<void> translate_linear(OnnxGraph& g, const models::Node& node);
Result<void> translate_fake_quantise(OnnxGraph& g, const models::Node& node);
Result<void> translate_selective_scan(OnnxGraph& g, const models::Node& node);
Result<void> translate_bi_wkv(OnnxGraph& g, const models::Node& node);

}  // namespace preceptor::deploy::internal
