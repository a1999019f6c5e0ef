#include <torch/torch.h>

#include <numeric>

#include "deploy/onnx_graph.h"

/// What each operator of LibTorch is in ONNX. Those with more to them than a line have files of their own.
namespace preceptor::deploy::internal {
namespace {

using models::Node;
using Ints = OnnxNodes::Ints;
using Names = OnnxNodes::Names;

/// A tensor argument, or a number in its place.
std::string operand(OnnxGraph& g, const Node& node, std::string_view name) {
  const auto& argument = node.argument(name);
  if (argument.values.empty()) return g.scalar(argument.constant.toScalar().toDouble());
  const auto& value = g.value(argument.values[0]);
  return g.fixed(argument.values[0]) && value.type != at::kFloat ? g.constant(value.tensor.to(at::kFloat)) : g.name(argument.values[0]);
}

std::string input(OnnxGraph& g, const Node& node) { return g.name(node.input(node.arguments[0].name)); }
std::int64_t rank(OnnxGraph& g, const Node& node) { return std::int64_t(g.value(node.inputs()[0]).shape.size()); }

/// An axis counted from the front.
std::int64_t axis(OnnxGraph& g, const Node& node, std::string_view name) {
  const auto value = node.attribute(name).toInt();
  return value < 0 ? value + rank(g, node) : value;
}

/// A list of two, or of one that stands for both.
Ints pair(const Node& node, std::string_view name) {
  auto values = node.ints(name);
  if (values.size() == 1) values.push_back(values[0]);
  return values;
}

Ints both_ends(const Ints& pads) { return {pads[0], pads[1], pads[0], pads[1]}; }

Translation unary(const char* op, OnnxNodes::Attributes attributes = {}) {
  return [=](OnnxGraph& g, const Node& node) { return g.define(node, op, {input(g, node)}, attributes); };
}

Translation binary(const char* op) {
  return [=](OnnxGraph& g, const Node& node) { return g.define(node, op, {operand(g, node, "self"), operand(g, node, "other")}); };
}

Translation product(const char* left, const char* right) {
  return [=](OnnxGraph& g, const Node& node) { return g.define(node, "MatMul", {operand(g, node, left), operand(g, node, right)}); };
}

/// Everything that only renames places.
Result<void> reshape(OnnxGraph& g, const Node& node) {
  return g.define(node, "Reshape", {input(g, node), g.reshape_to(g.sides(node.outputs[0]))});
}

Result<void> add(OnnxGraph& g, const Node& node) {
  auto other = operand(g, node, "other");
  if (const auto alpha = node.attribute("alpha").toScalar().toDouble(); alpha != 1) other = g.add("Mul", {other, g.scalar(alpha)});
  return g.define(node, "Add", {operand(g, node, "self"), other});
}

Result<void> divide(OnnxGraph& g, const Node& node) {
  if (node.overload.ends_with("_mode")) return fail(Code::kInvalid, "division that rounds has no form in ONNX here");
  return binary("Div")(g, node);
}

Result<void> addmm(OnnxGraph& g, const Node& node) {
  return g.define(node, "Gemm", {operand(g, node, "mat1"), operand(g, node, "mat2"), operand(g, node, "self")},
                  {{"alpha", node.attribute("alpha").toScalar().toDouble()}, {"beta", node.attribute("beta").toScalar().toDouble()}});
}

Result<void> permute(OnnxGraph& g, const Node& node) {
  auto order = node.ints("dims");
  for (auto& from : order) from += from < 0 ? rank(g, node) : 0;
  return g.define(node, "Transpose", {input(g, node)}, {{"perm", order}});
}

Result<void> transpose(OnnxGraph& g, const Node& node) {
  Ints order(std::size_t(rank(g, node)));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[std::size_t(axis(g, node, "dim0"))], order[std::size_t(axis(g, node, "dim1"))]);
  return g.define(node, "Transpose", {input(g, node)}, {{"perm", order}});
}

Result<void> expand(OnnxGraph& g, const Node& node) { return g.define(node, "Expand", {input(g, node), g.shape(g.sides(node.outputs[0]))}); }

Result<void> concatenate(OnnxGraph& g, const Node& node) {
  Names inputs;
  for (const int value : node.argument("tensors").values) inputs.push_back(g.name(value));
  return g.define(node, "Concat", inputs, {{"axis", axis(g, node, "dim")}});
}

Result<void> stack(OnnxGraph& g, const Node& node) {
  const auto at = node.attribute("dim").toInt() + (node.attribute("dim").toInt() < 0 ? rank(g, node) + 1 : 0);
  Names inputs;
  for (const int value : node.argument("tensors").values) inputs.push_back(g.add("Unsqueeze", {g.name(value), g.ints({at})}));
  return g.define(node, "Concat", inputs, {{"axis", at}});
}

/// chunk and split_with_sizes: the parts' sizes are those that the trace saw.
Result<void> split(OnnxGraph& g, const Node& node) {
  const auto along = axis(g, node, "dim");
  Names outputs;
  Ints sizes;
  for (const int value : node.outputs) {
    outputs.push_back(g.name(value));
    sizes.push_back(g.value(value).shape[std::size_t(along)]);
  }
  if (g.value(node.inputs()[0]).batched[std::size_t(along)]) return fail(Code::kInvalid, "images of a batch may not be parted");
  g.add_named("Split", {input(g, node), g.ints(sizes)}, outputs, {{"axis", along}});
  return {};
}

Result<void> narrow(OnnxGraph& g, const Node& node) {
  const auto along = axis(g, node, "dim"), start = node.attribute("start").toInt(), length = node.attribute("length").toInt();
  if (start < 0 || length < 0) return fail(Code::kInvalid, "images of a batch may not be parted");
  return g.define(node, "Slice", {input(g, node), g.ints({start}), g.ints({start + length}), g.ints({along})});
}

Result<void> select(OnnxGraph& g, const Node& node) {
  const auto index = g.constant(torch::tensor(node.attribute("index").toInt(), at::kLong));
  return g.define(node, "Gather", {input(g, node), index}, {{"axis", axis(g, node, "dim")}});
}

/// Pads are [left, right] from the last axis on; negative ones cut.
Result<void> pad(OnnxGraph& g, const Node& node) {
  const auto by = node.ints("pad");
  const auto axes = std::size_t(rank(g, node));
  Ints pads(2 * axes), starts, ends, cut;
  for (std::size_t i = 0; i < by.size() / 2; ++i) {
    const auto at = axes - 1 - i;
    const auto left = by[2 * i], right = by[2 * i + 1], side = g.value(node.inputs()[0]).shape[at];
    pads[at] = std::max<std::int64_t>(left, 0);
    pads[at + axes] = std::max<std::int64_t>(right, 0);
    if (left >= 0 && right >= 0) continue;
    starts.push_back(std::max<std::int64_t>(-left, 0));
    ends.push_back(side + std::min<std::int64_t>(right, 0));
    cut.push_back(std::int64_t(at));
  }
  auto x = input(g, node);
  if (!cut.empty()) x = g.add("Slice", {x, g.ints(starts), g.ints(ends), g.ints(cut)});
  return g.define(node, "Pad", {x, g.ints(pads), g.scalar(node.attribute("value").toScalar().toDouble())});
}

Result<void> mean(OnnxGraph& g, const Node& node) {
  return g.define(node, "ReduceMean", {input(g, node)}, {{"axes", node.ints("dim")}, {"keepdims", std::int64_t(node.attribute("keepdim").toBool())}});
}

Result<void> sum(OnnxGraph& g, const Node& node) {
  return g.define(node, "ReduceSum", {input(g, node), g.ints(node.ints("dim"))}, {{"keepdims", std::int64_t(node.attribute("keepdim").toBool())}});
}

Result<void> largest(OnnxGraph& g, const Node& node) {
  if (node.overload != "dim" || g.used(node.outputs[1])) return fail(Code::kInvalid, "only the largest values along an axis have a form in ONNX here");
  return g.define(node, "ReduceMax", {input(g, node)},
                  {{"axes", Ints{axis(g, node, "dim")}}, {"keepdims", std::int64_t(node.attribute("keepdim").toBool())}});
}

Result<void> max_pool(OnnxGraph& g, const Node& node) {
  if (node.attribute("ceil_mode").toBool()) return fail(Code::kInvalid, "ceil_mode has no form in ONNX here");
  const auto stride = node.ints("stride").empty() ? "kernel_size" : "stride";
  return g.define(node, "MaxPool", {input(g, node)},
                  {{"kernel_shape", pair(node, "kernel_size")}, {"strides", pair(node, stride)}, {"pads", both_ends(pair(node, "padding"))},
                   {"dilations", pair(node, "dilation")}});
}

Result<void> average_pool(OnnxGraph& g, const Node& node) {
  if (node.attribute("ceil_mode").toBool() || !node.attribute("divisor_override").isNone())
    return fail(Code::kInvalid, "ceil_mode and divisor_override have no form in ONNX here");
  const auto stride = node.ints("stride").empty() ? "kernel_size" : "stride";
  return g.define(node, "AveragePool", {input(g, node)},
                  {{"kernel_shape", pair(node, "kernel_size")}, {"strides", pair(node, stride)}, {"pads", both_ends(pair(node, "padding"))},
                   {"count_include_pad", std::int64_t(node.attribute("count_include_pad").toBool())}});
}

Result<void> upsample(OnnxGraph& g, const Node& node) {
  // By sizes, not by scales, which as floats may miss a pixel.
  return g.define(node, "Resize", {input(g, node), "", "", g.shape(g.sides(node.outputs[0]))},
                  {{"mode", std::string("linear")},
                   {"coordinate_transformation_mode", std::string(node.attribute("align_corners").toBool() ? "align_corners" : "half_pixel")}});
}

/// Scale or shift of a norm; `otherwise` where the layer has none.
std::string affine(OnnxGraph& g, const Node& node, std::string_view name, double otherwise, const Ints& shape) {
  const auto& values = node.argument(name).values;
  return !values.empty() && values[0] >= 0 ? g.name(values[0]) : g.constant(torch::full(shape, otherwise));
}

Result<void> batch_norm(OnnxGraph& g, const Node& node) {
  if (node.attribute("training").toBool()) return fail(Code::kInvalid, "a batch norm that still learns");
  return g.define(node, "BatchNormalization",
                  {input(g, node), operand(g, node, "weight"), operand(g, node, "bias"), operand(g, node, "running_mean"), operand(g, node, "running_var")},
                  {{"epsilon", node.attribute("eps").toDouble()}});
}

Result<void> layer_norm(OnnxGraph& g, const Node& node) {
  const auto shape = node.ints("normalized_shape");
  return g.define(node, "LayerNormalization", {input(g, node), affine(g, node, "weight", 1, shape), affine(g, node, "bias", 0, shape)},
                  {{"axis", -std::int64_t(shape.size())}, {"epsilon", node.attribute("eps").toDouble()}});
}

/// By instance norm over a group's values; ONNX has the operator itself only from opset 18 on.
Result<void> group_norm(OnnxGraph& g, const Node& node) {
  const auto groups = node.attribute("num_groups").toInt();
  const auto& shape = g.value(node.inputs()[0]).shape;
  const auto channels = shape[1], values = std::accumulate(shape.begin() + 1, shape.end(), std::int64_t(1), std::multiplies<>());
  const auto reshape_to = [&](const std::string& x, const Ints& to) { return g.add("Reshape", {x, g.reshape_to(to)}); };
  const auto grouped = reshape_to(input(g, node), {-1, groups, values / groups});
  const auto normed = g.add("InstanceNormalization", {grouped, g.constant(torch::ones({groups})), g.constant(torch::zeros({groups}))},
                            {{"epsilon", node.attribute("eps").toDouble()}});
  Ints per_channel(shape.size() - 1, 1);
  per_channel[0] = channels;
  const auto scale = reshape_to(affine(g, node, "weight", 1, {channels}), per_channel);
  const auto shift = reshape_to(affine(g, node, "bias", 0, {channels}), per_channel);
  return g.define(node, "Add", {g.add("Mul", {reshape_to(normed, g.sides(node.outputs[0])), scale}), shift});
}

Result<void> softmax(OnnxGraph& g, const Node& node) { return g.define(node, "Softmax", {input(g, node)}, {{"axis", axis(g, node, "dim")}}); }

Result<void> gelu(OnnxGraph& g, const Node& node) {
  if (node.attribute("approximate").toStringRef() != "none") return fail(Code::kInvalid, "GELU's approximation by tanh has no form in ONNX here");
  const auto x = input(g, node);
  const auto both = g.add("Add", {g.add("Erf", {g.add("Div", {x, g.scalar(std::sqrt(2.0))})}), g.scalar(1)});
  return g.define(node, "Mul", {g.add("Mul", {x, both}), g.scalar(0.5)});
}

Result<void> silu(OnnxGraph& g, const Node& node) {
  const auto x = input(g, node);
  return g.define(node, "Mul", {x, g.add("Sigmoid", {x})});
}

Result<void> relu6(OnnxGraph& g, const Node& node) { return g.define(node, "Clip", {input(g, node), g.scalar(0), g.scalar(6)}); }

Result<void> leaky_relu(OnnxGraph& g, const Node& node) {
  return g.define(node, "LeakyRelu", {input(g, node)}, {{"alpha", node.attribute("negative_slope").toScalar().toDouble()}});
}

Result<void> square(OnnxGraph& g, const Node& node) { return g.define(node, "Mul", {input(g, node), input(g, node)}); }

Result<void> lerp(OnnxGraph& g, const Node& node) {
  const auto x = input(g, node), step = g.add("Sub", {operand(g, node, "end"), x});
  return g.define(node, "Add", {x, g.add("Mul", {step, operand(g, node, "weight")})});
}

}  // namespace

const std::map<std::string, Translation>& translations() {
  static const std::map<std::string, Translation> kTable{
      {"add", add},
      {"addmm", addmm},
      {"avg_pool2d", average_pool},
      {"batch_norm", batch_norm},
      {"bmm", product("self", "mat2")},
      {"cat", concatenate},
      {"chunk", split},
      {"constant_pad_nd", pad},
      {"convolution", translate_convolution},
      {"div", divide},
      {"expand", expand},
      {"fake_quantize_per_tensor_affine", translate_fake_quantise},
      {"flatten", reshape},
      {"gelu", gelu},
      {"group_norm", group_norm},
      {"hardsigmoid", unary("HardSigmoid", {{"alpha", 1.0 / 6}, {"beta", 0.5}})},
      {"hardswish", unary("HardSwish")},
      {"layer_norm", layer_norm},
      {"leaky_relu", leaky_relu},
      {"lerp", lerp},
      {"linear", translate_linear},
      {"matmul", product("self", "other")},
      {"max", largest},
      {"max_pool2d", max_pool},
      {"mean", mean},
      {"mm", product("self", "mat2")},
      {"mul", binary("Mul")},
      {"narrow", narrow},
      {"permute", permute},
      {"preceptor::bi_wkv", translate_bi_wkv},
      {"preceptor::selective_scan", translate_selective_scan},
      {"relu", unary("Relu")},
      {"relu6", relu6},
      {"reshape", reshape},
      {"select", select},
      {"sigmoid", unary("Sigmoid")},
      {"silu", silu},
      {"softmax", softmax},
      {"split_with_sizes", split},
      {"square", square},
      {"squeeze", reshape},
      {"stack", stack},
      {"sum", sum},
      {"transpose", transpose},
      {"unsqueeze", reshape},
      {"upsample_bilinear2d", upsample},
      {"view", reshape},
  };
  return kTable;
}

}  // namespace preceptor::deploy::internal
