#include <torch/torch.h>

#include <optional>

#include "deploy/onnx_graph.h"

/// Convolutions and linear layers, in float32 or, behind an input that rounds, in QDQ form.
namespace preceptor::deploy::internal {
namespace {

using models::Node;
using Ints = OnnxNodes::Ints;
using Names = OnnxNodes::Names;

constexpr double kLargest = 127;         ///< of a weight's integers: adaptable.h
constexpr double kSmallestStep = 1e-12;  ///< of a channel of zeros

std::optional<int> bias_of(const Node& node) {
  const auto& values = node.argument("bias").values;
  if (values.empty() || values[0] < 0) return {};
  return values[0];
}

/// The step of the layer's input, if that rounds to eight bits and the weight is known.
std::optional<double> input_step(const OnnxGraph& g, const Node& node) {
  const auto* maker = g.maker(node.input("input"));
  if (!maker || maker->op != "fake_quantize_per_tensor_affine" || !g.fixed(node.input("weight"))) return {};
  return maker->attribute("scale").toDouble();
}

/// A weight [out, …] on the grid that layers round to: one step an output channel.
struct IntegerWeight {
  at::Tensor values, step;  ///< int8 like the weight; float32 [out]
};

IntegerWeight rounded_weight(const at::Tensor& weight) {
  const auto flat = weight.to(at::kDouble).flatten(1);
  const auto step = (flat.abs().amax(1) / kLargest).clamp_min(kSmallestStep);
  const auto values = (flat / step.unsqueeze(1)).round().to(at::kChar).view(weight.sizes());
  return {values, step.to(at::kFloat)};
}

std::string dequantised(OnnxGraph& g, const at::Tensor& values, const at::Tensor& step, const std::string& name, std::int64_t axis) {
  const auto zero = torch::zeros_like(step, values.scalar_type());
  return g.add("DequantizeLinear", {g.constant(values, name), g.constant(step, name + ".step"), g.constant(zero, name + ".zero")}, {{"axis", axis}});
}

/// The bias as int32 in steps of input × weight, as an integer convolution adds it; in float where that overflows.
std::string integer_bias(OnnxGraph& g, int bias, double input_step, const at::Tensor& weight_step) {
  const auto step = weight_step.to(at::kDouble) * input_step;
  const auto values = (g.value(bias).tensor.to(at::kDouble) / step).round();
  if (values.abs().max().item<double>() > INT32_MAX) return g.name(bias);
  return dequantised(g, values.to(at::kInt), step.to(at::kFloat), g.value(bias).name, 0);
}

}  // namespace

Result<void> translate_convolution(OnnxGraph& g, const Node& node) {
  const int weight = node.input("weight");
  const bool transposed = node.attribute("transposed").toBool();
  const auto axes = g.value(weight).shape.size() - 2;
  const auto each = [&](const char* of) {  // LibTorch takes one number for all axes
    const auto values = node.ints(of);
    return values.size() == 1 ? Ints(axes, values[0]) : values;
  };
  auto pads = each("padding");
  for (std::size_t i = 0; i < axes; ++i) pads.push_back(pads[i]);
  OnnxNodes::Attributes attributes{
      {"strides", each("stride")}, {"pads", pads}, {"dilations", each("dilation")}, {"group", node.attribute("groups").toInt()}};
  if (transposed) attributes.push_back({"output_padding", each("output_padding")});
  Names inputs{g.name(node.input("input"))};
  const auto bias = bias_of(node);
  const auto step = input_step(g, node);
  if (step && !transposed) {
    const auto rounded = rounded_weight(g.value(weight).tensor);
    inputs.push_back(dequantised(g, rounded.values, rounded.step, g.value(weight).name, 0));
    if (bias) inputs.push_back(integer_bias(g, *bias, *step, rounded.step));
  } else {
    inputs.push_back(g.name(weight));
    if (bias) inputs.push_back(g.name(*bias));
  }
  return g.define(node, transposed ? "ConvTranspose" : "Conv", inputs, attributes);
}

Result<void> translate_linear(OnnxGraph& g, const Node& node) {
  const int weight = node.input("weight");
  const auto x = g.name(node.input("input"));
  const auto bias = bias_of(node);
  std::string matrix;  // [in, out]
  if (input_step(g, node)) {
    const auto rounded = rounded_weight(g.value(weight).tensor);
    matrix = dequantised(g, rounded.values.t(), rounded.step, g.value(weight).name, 1);
  } else if (g.fixed(weight)) {
    matrix = g.constant(g.value(weight).tensor.t(), g.value(weight).name);
  } else {
    matrix = g.add("Transpose", {g.name(weight)}, {{"perm", Ints{1, 0}}});
  }
  if (!bias) return g.define(node, "MatMul", {x, matrix});
  return g.define(node, "Add", {g.add("MatMul", {x, matrix}), g.name(*bias)});
}

Result<void> translate_fake_quantise(OnnxGraph& g, const Node& node) {
  if (node.attribute("quant_min").toInt() != 0 || node.attribute("quant_max").toInt() != 255)
    return fail(Code::kInvalid, "only 0 … 255 has a form in ONNX here");
  const auto step = g.scalar(node.attribute("scale").toDouble());
  const auto zero = g.constant(torch::tensor(node.attribute("zero_point").toInt()).to(at::kByte));
  const auto integers = g.add("QuantizeLinear", {g.name(node.input("self")), step, zero});
  return g.define(node, "DequantizeLinear", {integers, step, zero});
}

}  // namespace preceptor::deploy::internal
