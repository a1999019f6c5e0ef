#include <torch/torch.h>

#include "deploy/onnx_graph.h"

/// The kernels of models/kernels as loops over the tokens.
namespace preceptor::deploy::internal {
namespace {

using models::Node;
using Ints = OnnxNodes::Ints;
using Names = OnnxNodes::Names;

/// One ONNX Scan: a state that goes from token to token, and slices of sequences. Its body is written by calls between
/// the constructor and run(); it may use the outer graph's values.
class Scan {
 public:
  explicit Scan(OnnxGraph& outer) : outer_(outer), prefix_(outer.fresh_name() + "_"), body_(graph_, prefix_) { graph_.set_name(prefix_ + "step"); }

  OnnxNodes& body() { return body_; }
  /// The state inside the body; `initial` outside.
  std::string state(const std::string& initial) {
    initial_.push_back(initial);
    return declare(*graph_.add_input(), body_.fresh_name());
  }
  /// One token of a sequence, whose axis of tokens goes; `backward`: the last token first. After all states.
  std::string slice(const std::string& sequence, std::int64_t axis, bool backward = false) {
    sequences_.push_back(sequence);
    axes_.push_back(axis);
    directions_.push_back(backward);
    return declare(*graph_.add_input(), body_.fresh_name());
  }
  /// What a state is for the next token, in the order of state(). Before all outputs.
  void next(const std::string& value) { declare(*graph_.add_output(), value); }
  /// A value of each token, to be laid along `axis`.
  void output(const std::string& value, std::int64_t axis, bool backward = false) {
    output_axes_.push_back(axis);
    output_directions_.push_back(backward);
    declare(*graph_.add_output(), value);
  }
  /// Writes the node. Returns the outputs' names.
  Names run() {
    auto inputs = initial_;
    inputs.insert(inputs.end(), sequences_.begin(), sequences_.end());
    Names all, outputs;
    for (std::size_t i = 0; i < initial_.size(); ++i) all.push_back(outer_.fresh_name());  // last states, which nobody wants
    for (std::size_t i = 0; i < output_axes_.size(); ++i) outputs.push_back(outer_.fresh_name());
    all.insert(all.end(), outputs.begin(), outputs.end());
    outer_.add_named("Scan", inputs, all,
                     {{"num_scan_inputs", std::int64_t(sequences_.size())}, {"scan_input_axes", axes_}, {"scan_input_directions", directions_},
                      {"scan_output_axes", output_axes_}, {"scan_output_directions", output_directions_}, {"body", &graph_}});
    return outputs;
  }

 private:
  static std::string declare(onnx::ValueInfoProto& made, const std::string& name) {
    made.set_name(name);
    made.mutable_type()->mutable_tensor_type()->set_elem_type(onnx::TensorProto::FLOAT);
    return name;
  }

  OnnxGraph& outer_;
  std::string prefix_;
  onnx::GraphProto graph_;
  OnnxNodes body_;
  Names initial_, sequences_;
  Ints axes_, directions_, output_axes_, output_directions_;
};

std::string filled(OnnxGraph& g, double value, const Ints& sides) { return g.add("Expand", {g.scalar(value), g.shape(sides)}); }

/// rows [K, B, L, X] with row t of order k taken from row orders[k, t].
std::string reorder(OnnxGraph& g, const std::string& rows, const at::Tensor& orders) {
  const auto count = orders.size(0);
  Names parts(std::size_t(count), rows);
  if (count > 1) {
    for (auto& part : parts) part = g.fresh_name();
    g.add_named("Split", {rows, g.ints(Ints(std::size_t(count), 1))}, parts, {{"axis", std::int64_t(0)}});
  }
  for (std::int64_t k = 0; k < count; ++k)
    if (!orders[k].equal(torch::arange(orders.size(1), at::kLong)))
      parts[std::size_t(k)] = g.add("Gather", {parts[std::size_t(k)], g.constant(orders[k])}, {{"axis", std::int64_t(2)}});
  return count > 1 ? g.add("Concat", parts, {{"axis", std::int64_t(0)}}) : parts[0];
}

}  // namespace

Result<void> translate_selective_scan(OnnxGraph& g, const Node& node) {
  const auto arg = [&](const char* name) { return g.name(node.input(name)); };
  if (!g.fixed(node.input("order"))) return fail(Code::kInvalid, "an order of tokens that depends on the image");
  const auto orders = g.value(node.input("order")).tensor.to(at::kLong);
  const auto& a_sides = g.value(node.input("a")).shape;
  const auto count = a_sides[0], channels = a_sides[1], states = a_sides[2];
  const auto axis = [](std::int64_t at) { return OnnxNodes::Attributes{{"axis", at}}; };

  // Everything in the order of the steps, [K, B, L, …].
  const auto u = g.add("Unsqueeze", {arg("u"), g.ints({0})});
  const auto x = reorder(g, count > 1 ? g.add("Concat", Names(std::size_t(count), u), axis(0)) : u, orders);
  const auto per_order = [&](const std::string& values) { return g.add("Reshape", {values, g.ints({count, 1, 1, channels})}); };
  const auto d = g.add("Softplus", {g.add("Add", {reorder(g, arg("delta"), orders), per_order(arg("delta_bias"))})});
  const auto a = g.add("Reshape", {arg("a"), g.ints({count, 1, channels, states})});

  // h ← exp(d·a) h + (d·x)·b, y = h·c, for one token of every order at once: h [K, B, D, N].
  Scan scan(g);
  auto& body = scan.body();
  const auto h = scan.state(filled(g, 0, {count, g.sides(node.input("u"))[0], channels, states}));
  const auto step = scan.slice(d, 2), input = scan.slice(g.add("Mul", {d, x}), 2);
  const auto b = scan.slice(reorder(g, arg("b"), orders), 2), c = scan.slice(reorder(g, arg("c"), orders), 2);
  const auto column = [&](const std::string& values) { return body.add("Unsqueeze", {values, body.ints({3})}); };
  const auto row = [&](const std::string& values) { return body.add("Unsqueeze", {values, body.ints({2})}); };
  const auto decay = body.add("Exp", {body.add("Mul", {column(step), a})});
  const auto next = body.add("Add", {body.add("Mul", {decay, h}), body.add("Mul", {column(input), row(b)})});
  scan.next(next);
  scan.output(body.add("Squeeze", {body.add("MatMul", {next, column(c)}), body.ints({3})}), 2);
  const auto y = g.add("Add", {scan.run()[0], g.add("Mul", {x, per_order(arg("skip"))})});

  // The inverse of a permutation is the order that sorts it.
  return g.define(node, "ReduceSum", {reorder(g, y, orders.argsort(1, false)), g.ints({0})}, {{"keepdims", std::int64_t(0)}});
}

Result<void> translate_bi_wkv(OnnxGraph& g, const Node& node) {
  const auto arg = [&](const char* name) { return g.name(node.input(name)); };
  const auto sides = g.sides(node.input("k"));
  const auto length = g.scalar(double(sides[1])), w = g.add("Div", {arg("decay"), length}), u = g.add("Div", {arg("first"), length});
  const auto k = arg("k"), v = arg("v");

  // The tokens before this one, and in the same loop those behind it: numerator and denominator in units of e^top.
  struct Sums {
    std::string top, numerator, denominator;
  };
  Scan scan(g);
  auto& body = scan.body();
  const Ints per_image{sides[0], sides[2]};
  const auto nothing = filled(g, -1e30, per_image), zero = filled(g, 0, per_image);
  Sums before[2];
  for (auto& sums : before) {
    sums.top = scan.state(nothing);
    sums.numerator = scan.state(zero);
    sums.denominator = scan.state(zero);
  }
  for (const bool backward : {false, true}) {
    const auto key = scan.slice(k, 1, backward), value = scan.slice(v, 1, backward);
    const auto& sums = before[backward];
    const auto faded = body.add("Sub", {sums.top, w}), top = body.add("Max", {faded, key});
    const auto old_part = body.add("Exp", {body.add("Sub", {faded, top})}), new_part = body.add("Exp", {body.add("Sub", {key, top})});
    scan.next(top);
    scan.next(body.add("Add", {body.add("Mul", {old_part, sums.numerator}), body.add("Mul", {new_part, value})}));
    scan.next(body.add("Add", {body.add("Mul", {old_part, sums.denominator}), new_part}));
  }
  for (const bool backward : {false, true})
    for (const auto& value : {before[backward].top, before[backward].numerator, before[backward].denominator})
      scan.output(body.add("Identity", {value}), 1, backward);
  const auto seen = scan.run();

  const auto own = g.add("Add", {k, u}), top = g.add("Max", {seen[0], seen[3], own});
  const auto share = [&](const std::string& of) { return g.add("Exp", {g.add("Sub", {of, top})}); };
  const auto first = share(seen[0]), second = share(seen[3]), mine = share(own);
  const auto total = [&](const std::string& one, const std::string& two, const std::string& three) {
    return g.add("Add", {g.add("Add", {g.add("Mul", {first, one}), g.add("Mul", {second, two})}), three});
  };
  return g.define(node, "Div", {total(seen[1], seen[4], g.add("Mul", {mine, v})), total(seen[2], seen[5], mine)});
}

}  // namespace preceptor::deploy::internal
