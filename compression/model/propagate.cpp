#include "compression/model/propagate.h"

#include <torch/torch.h>

#include <algorithm>
#include <optional>

namespace preceptor::compression {
namespace {

using models::Graph;
using models::GraphValue;
using models::Node;
using Label = std::optional<at::Tensor>;  ///< [n], or nothing: no element along that dimension can go

const char* const kImmovable = "meets values that have no channels to remove";

class Propagation {
 public:
  explicit Propagation(const Graph& graph) : graph_(graph), to_(graph.values.size()) {}

  Labelled run() {
    for (std::size_t v = 0; v < graph_.values.size(); ++v)
      if (graph_.values[v].kind == GraphValue::Kind::kParameter) start(v);
    for (const auto& node : graph_.nodes) follow(node);
    for (std::size_t d = 0; d < shape(graph_.logits).size(); ++d) fix(graph_.logits, std::int64_t(d), "the classes");
    for (const auto* node : grouped_) group(*node);
    while (make_products()) {
    }
    for (auto& layers : to_)
      for (auto& layer : layers) layer = labels_.shortest(layer);
    return {std::move(labels_), std::move(to_), std::move(in_pairs_)};
  }

 private:
  // What is known of a value.

  const std::vector<std::int64_t>& shape(int value) const { return graph_.values[std::size_t(value)].shape; }
  std::int64_t dims(int value) const { return std::int64_t(shape(value).size()); }
  std::int64_t wrapped(int value, std::int64_t dim) const { return dim < 0 ? dim + dims(value) : dim; }

  void start(std::size_t v) {
    const auto& sides = graph_.values[v].shape;
    for (std::size_t d = 0; d < sides.size(); ++d)
      if (sides[d] > 1) to_[v].push_back(spread(labels_.fresh(sides[d]), std::int64_t(sides.size()), std::int64_t(d)));
  }

  /// The labels of a value, as short as joins until now allow. One that labels a whole value cannot be cut from it.
  std::vector<at::Tensor> layers(int value) {
    auto& all = to_[std::size_t(value)];
    std::erase_if(all, [&](at::Tensor& layer) {
      layer = labels_.shortest(layer);
      if (layer.numel() > 1) return false;
      labels_.fix(layer, "all channels hang together");
      return true;
    });
    return all;
  }

  /// Labels along a dimension; those that vary along others as well are joined there first.
  std::vector<at::Tensor> all_along(int value, std::int64_t dim) {
    std::vector<at::Tensor> found;
    for (const auto& layer : layers(value))
      if (layer.size(dim) > 1) found.push_back(labels_.along(layer, dim));
    return found;
  }
  Label along(int value, std::int64_t dim) {
    const auto found = all_along(value, dim);
    for (std::size_t i = 1; i < found.size(); ++i) labels_.join(found[0], found[i]);
    return found.empty() ? Label() : found[0];
  }

  void fix(int value, std::int64_t dim, const std::string& reason) {
    for (const auto& layer : layers(value))
      if (layer.size(dim) > 1) labels_.fix(layer, reason);
  }
  void fix_all(int value, const std::string& reason) {
    for (const auto& layer : layers(value)) labels_.fix(layer, reason);
  }

  /// Two dimensions whose elements meet one by one.
  Label meet(const Label& a, const Label& b) {
    if (a && b) labels_.join(*a, *b);
    else if (a || b) labels_.fix(a ? *a : *b, kImmovable);
    return a && b ? a : Label();
  }
  Label meet(int a, std::int64_t a_dim, int b, std::int64_t b_dim) { return meet(along(a, a_dim), along(b, b_dim)); }

  void put(int value, const Label& vector, std::int64_t dim) {
    if (vector) to_[std::size_t(value)].push_back(spread(*vector, dims(value), dim));
  }
  /// Labels of `from` that do not vary along `dim`, which `to` has in the same place, of whatever size.
  void hand_on_others(int from, int to, std::int64_t dim) {
    for (const auto& layer : layers(from))
      if (layer.size(dim) == 1) to_[std::size_t(to)].push_back(layer);
  }

  // Rules.

  void follow(const Node& node) {
    using Rule = void (Propagation::*)(const Node&);
    static const std::map<std::string, Rule> kRules = [] {
      std::map<std::string, Rule> rules;
      const auto add = [&](Rule rule, std::initializer_list<const char*> names) {
        for (const auto* name : names) rules[name] = rule;
      };
      add(&Propagation::same, {"relu", "relu6", "hardtanh", "leaky_relu", "silu", "gelu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "exp",
                               "log", "neg", "square", "sqrt", "abs", "softplus", "clamp", "elu"});
      add(&Propagation::pointwise, {"add", "sub", "mul", "div", "lerp", "maximum", "minimum", "pow", "rsub"});
      add(&Propagation::move, {"view", "reshape", "flatten", "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "repeat", "select",
                               "unbind", "constant_pad_nd"});
      add(&Propagation::part, {"narrow", "slice", "split_with_sizes"});
      add(&Propagation::chunk, {"chunk"});
      add(&Propagation::cat, {"cat"});
      add(&Propagation::stack, {"stack"});
      add(&Propagation::pool, {"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_bilinear2d",
                               "upsample_nearest2d", "replication_pad2d", "reflection_pad2d"});
      add(&Propagation::reduce, {"mean", "sum", "max", "amax"});
      add(&Propagation::softmax, {"softmax"});
      add(&Propagation::convolution, {"convolution"});
      add(&Propagation::linear, {"linear"});
      add(&Propagation::matmul, {"mm", "bmm", "matmul"});
      add(&Propagation::addmm, {"addmm"});
      add(&Propagation::batch_norm, {"batch_norm"});
      add(&Propagation::group_norm, {"group_norm"});
      add(&Propagation::layer_norm, {"layer_norm"});
      add(&Propagation::selective_scan, {"preceptor::selective_scan"});
      add(&Propagation::bi_wkv, {"preceptor::bi_wkv"});
      return rules;
    }();
    if (const auto rule = kRules.find(node.op); rule != kRules.end()) return (this->*rule->second)(node);
    for (const int input : node.inputs()) fix_all(input, "operator " + node.op + " is not known to pruning");
  }

  void same(const Node& node) { to_[std::size_t(node.outputs[0])] = layers(node.inputs()[0]); }

  /// Operands broadcast against each other; a side of 1 takes no part.
  void pointwise(const Node& node) {
    auto operands = node.inputs();
    const int output = node.outputs[0];
    std::erase_if(operands, [&](int v) { return std::ranges::all_of(shape(v), [](auto side) { return side == 1; }); });
    if (operands.size() == 1 && shape(operands[0]) == shape(output)) {
      to_[std::size_t(output)] = layers(operands[0]);
      return;
    }
    const auto rank = dims(output);
    for (std::int64_t d = 0; d < rank; ++d) {
      std::optional<Label> met;
      for (const int operand : operands) {
        const auto own = d - (rank - dims(operand));
        if (own < 0 || shape(operand)[std::size_t(own)] == 1) continue;
        const auto label = along(operand, own);
        met = met ? meet(*met, label) : label;
      }
      if (met) put(output, *met, d);
    }
  }

  /// Runs the node on labels; padding has none.
  std::vector<at::Tensor> moved(const Node& node, const at::Tensor& layer, int value) {
    const auto full = layer.expand(shape(value));
    if (node.op == "constant_pad_nd") return {torch::constant_pad_nd(full, node.ints("pad"), 0)};
    return models::run_node(node, std::array{full}, 1);
  }

  void move(const Node& node) {
    const int from = node.inputs()[0];
    for (const auto& layer : layers(from)) {
      const auto outputs = moved(node, layer, from);
      for (std::size_t i = 0; i < node.outputs.size(); ++i) to_[std::size_t(node.outputs[i])].push_back(labels_.shortest(outputs[i]));
    }
  }

  void part(const Node& node) {
    const int from = node.inputs()[0];
    // Sizes of a split follow those of the layers beside it; one part of a whole is where a number tells.
    if (node.op != "split_with_sizes" && shape(node.outputs[0]) != shape(from))
      fix(from, wrapped(from, node.attribute("dim").toInt()), "a fixed range of channels is taken");
    move(node);
  }

  /// Equal shares stay equal: what goes, goes from each.
  void chunk(const Node& node) {
    const int from = node.inputs()[0];
    const auto dim = wrapped(from, node.attribute("dim").toInt());
    const auto shortest = shape(node.outputs.back())[std::size_t(dim)];
    for (const auto& layer : layers(from)) {
      if (layer.size(dim) == 1) continue;
      const auto shares = moved(node, layer, from);
      for (const auto& share : shares) {
        labels_.join(share.narrow(dim, 0, shortest), shares[0].narrow(dim, 0, shortest));
        if (share.size(dim) > shortest) labels_.fix(share.narrow(dim, shortest, share.size(dim) - shortest), "shares of unequal size");
      }
    }
    move(node);
  }

  void cat(const Node& node) {
    const auto& parts = node.argument("tensors").values;
    const int to = node.outputs[0];
    const auto dim = wrapped(to, node.attribute("dim").toInt());
    std::vector<at::Tensor> joined;
    bool any = false;
    for (const int part : parts) {
      const auto label = along(part, dim);
      any = any || label;
      const auto size = shape(part)[std::size_t(dim)];
      if (!label) labels_.fix(joined.emplace_back(labels_.fresh(size)), "");
      else joined.push_back(*label);
    }
    if (any) put(to, torch::cat(joined), dim);
    for (std::int64_t d = 0; d < dims(to); ++d)
      if (d != dim) across(parts, d, to, d);
  }

  void stack(const Node& node) {
    const auto& parts = node.argument("tensors").values;
    const int to = node.outputs[0];
    const auto dim = wrapped(to, node.attribute("dim").toInt());
    for (std::int64_t d = 0; d < dims(parts[0]); ++d) across(parts, d, to, d < dim ? d : d + 1);
  }

  void across(const std::vector<int>& parts, std::int64_t dim, int to, std::int64_t to_dim) {
    auto met = along(parts[0], dim);
    for (std::size_t i = 1; i < parts.size(); ++i) met = meet(met, along(parts[i], dim));
    put(to, met, to_dim);
  }

  void pool(const Node& node) {
    const int from = node.inputs()[0], to = node.outputs[0];
    for (std::int64_t d = 2; d < dims(from); ++d) fix(from, d, "channels among pixels");
    put(to, along(from, 1), 1);
  }

  void reduce(const Node& node) {
    const int from = node.inputs()[0];
    if (std::ranges::none_of(node.arguments, [](const auto& a) { return a.name == "dim"; })) return fix_all(from, node.op + " over everything");
    const auto& given = node.attribute("dim");
    const auto over = given.isInt() ? std::vector<std::int64_t>{given.toInt()} : given.toIntVector();
    for (const auto dim : over) fix(from, wrapped(from, dim), node.op + " over the channels");
    for (const auto& layer : layers(from))
      to_[std::size_t(node.outputs[0])].push_back(layer.amax(over, node.attribute("keepdim").toBool()));
  }

  void softmax(const Node& node) {
    const int from = node.inputs()[0];
    fix(from, wrapped(from, node.attribute("dim").toInt()), "softmax over the channels");
    same(node);
  }

  void convolution(const Node& node) {
    const int from = node.input("input"), weight = node.input("weight"), to = node.outputs[0];
    for (std::int64_t d = 2; d < dims(weight); ++d) fix(weight, d, ""), fix(from, d, "channels among pixels");
    const auto groups = node.attribute("groups").toInt(), channels = shape(from)[1];
    const bool transposed = node.attribute("transposed").toBool();
    const std::int64_t out_dim = transposed ? 1 : 0;
    if (groups == 1) {
      meet(from, 1, weight, 1 - out_dim);
    } else if (groups == channels && shape(to)[1] == channels) {
      meet(from, 1, weight, 0);
    } else if (transposed || groups == channels) {
      fix_all(weight, "a transposed or widening grouped convolution"), fix(from, 1, "a transposed or widening grouped convolution");
    } else {
      grouped_.push_back(&node);
    }
    auto out = along(weight, out_dim);
    if (const auto& bias = node.argument("bias").values; !bias.empty() && bias[0] >= 0) out = meet(out, along(bias[0], 0));
    put(to, out, 1);
  }

  /// A convolution in groups, once it is known what hangs together: whole groups where each is of one head, else the same
  /// places of every group.
  void group(const Node& node) {
    const int from = node.input("input"), weight = node.input("weight"), to = node.outputs[0];
    const auto groups = node.attribute("groups").toInt();
    const auto inner = along(weight, 1);
    if (inner)
      for (const auto& label : inner->unbind()) in_pairs_.insert(label.item<std::int64_t>());
    const auto rows_of = [&](int value) {
      const auto label = along(value, 1);
      return label ? Label(label->view({groups, -1})) : label;
    };
    const auto in = rows_of(from), out = rows_of(to);
    if (in && out && in->size(1) > 1 && labels_.shortest(*in).size(1) == 1) {
      labels_.join(*out, in->narrow(1, 0, 1));
      if (inner) labels_.fix(*inner, "");
      return;
    }
    for (const auto& rows : {in, out})
      if (rows) labels_.join(*rows, rows->narrow(0, 0, 1));
    meet(inner, in ? Label((*in)[0]) : in);
  }

  void linear(const Node& node) {
    const int from = node.input("input"), weight = node.input("weight"), to = node.outputs[0];
    const auto last = dims(from) - 1;
    meet(from, last, weight, 1);
    hand_on_others(from, to, last);
    auto out = along(weight, 0);
    if (const auto& bias = node.argument("bias").values; !bias.empty() && bias[0] >= 0) out = meet(out, along(bias[0], 0));
    put(to, out, last);
  }

  void matmul(const Node& node) { multiply(node.inputs()[0], node.inputs()[1], node.outputs[0]); }

  void addmm(const Node& node) {
    const auto inputs = node.inputs();  // bias, a, b
    const int to = node.outputs[0];
    multiply(inputs[1], inputs[2], to);
    const auto columns = along(to, dims(to) - 1), bias = along(inputs[0], dims(inputs[0]) - 1);
    meet(columns, bias);
  }

  /// a [.., n, k] · b [.., k, m]. Where both have the same heads, a head is one thing: all that varies within it is joined.
  void multiply(int a, int b, int to) {
    const auto a_dims = dims(a), b_dims = dims(b), rank = dims(to);
    const auto own = [&](std::int64_t d, std::int64_t of) { return d - (rank - of); };
    const auto batched = [&](std::int64_t d) {
      return own(d, a_dims) >= 0 && own(d, b_dims) >= 0 && shape(a)[std::size_t(own(d, a_dims))] > 1 && shape(b)[std::size_t(own(d, b_dims))] > 1;
    };
    for (std::int64_t d = 0; d + 2 < rank; ++d) {
      if (!batched(d)) continue;
      all_along(a, own(d, a_dims));
      all_along(b, own(d, b_dims));
    }
    meet(a, a_dims - 1, b, b_dims - 2);
    for (std::int64_t d = 0; d + 2 < rank; ++d) {
      const auto of_a = own(d, a_dims), of_b = own(d, b_dims);
      if (batched(d)) put(to, meet(a, of_a, b, of_b), d);
      else if (of_a >= 0 && shape(a)[std::size_t(of_a)] > 1) put(to, along(a, of_a), d);
      else if (of_b >= 0 && shape(b)[std::size_t(of_b)] > 1) put(to, along(b, of_b), d);
    }
    for (const auto& rows : all_along(a, a_dims - 2)) put(to, rows, rank - 2);
    for (const auto& columns : all_along(b, b_dims - 1)) put(to, columns, rank - 1);
  }

  void batch_norm(const Node& node) { normalise(node, 1, {"weight", "bias", "running_mean", "running_var"}); }

  void layer_norm(const Node& node) {
    const int from = node.inputs()[0];
    if (node.ints("normalized_shape").size() != 1) return fix_all(from, "a norm over several dimensions");
    normalise(node, dims(from) - 1, {"weight", "bias"});
  }

  void group_norm(const Node& node) {
    const int from = node.inputs()[0];
    const auto groups = node.attribute("num_groups").toInt();
    const auto channels = along(from, 1);
    if (channels && groups > 1 && groups < shape(from)[1]) {
      const auto rows = channels->view({groups, -1});
      labels_.join(rows, rows.narrow(0, 0, 1));
    }
    normalise(node, 1, {"weight", "bias"});
  }

  void normalise(const Node& node, std::int64_t dim, std::initializer_list<const char*> parameters) {
    const int from = node.inputs()[0];
    for (const auto* name : parameters)
      if (const auto& value = node.argument(name).values; !value.empty() && value[0] >= 0) meet(from, dim, value[0], 0);
    same(node);
  }

  void selective_scan(const Node& node) {
    struct Taken {
      const char* name;
      std::int64_t channels, others[2];
    };
    const int u = node.input("u");
    for (const auto& [name, channels, others] :
         {Taken{"delta", 3, {0, 0}}, Taken{"a", 1, {0, 2}}, Taken{"skip", 1, {0, 0}}, Taken{"delta_bias", 1, {0, 0}}}) {
      meet(u, 2, node.input(name), channels);
      for (const auto dim : others) fix(node.input(name), dim, "states and orders of a scan");
    }
    for (const auto* name : {"b", "c"})
      for (const auto dim : {0, 3}) fix(node.input(name), dim, "states and orders of a scan");
    put(node.outputs[0], along(u, 2), 2);
  }

  void bi_wkv(const Node& node) {
    const int k = node.input("k");
    meet(k, 2, node.input("v"), 2);
    for (const auto* name : {"decay", "first"}) meet(k, 2, node.input(name), 0);
    put(node.outputs[0], along(k, 2), 2);
  }

  /// What still varies along several dimensions is joined along all but the one that leaves most apart.
  bool make_products() {
    bool changed = false;
    for (std::size_t v = 0; v < to_.size(); ++v)
      for (const auto& layer : layers(int(v))) {
        std::vector<std::int64_t> varied;
        for (std::int64_t d = 0; d < layer.dim(); ++d)
          if (layer.size(d) > 1) varied.push_back(d);
        if (varied.size() < 2) continue;
        labels_.along(layer, *std::ranges::max_element(varied, {}, [&](auto d) { return labels_.count_along(layer, d); }));
        changed = true;
      }
    return changed;
  }

  const Graph& graph_;
  Labels labels_;
  std::vector<std::vector<at::Tensor>> to_;
  std::vector<const Node*> grouped_;
  std::set<std::int64_t> in_pairs_;
};

}  // namespace

Labelled propagate(const Graph& graph) {
  torch::NoGradGuard no_grad;
  return Propagation(graph).run();
}

}  // namespace preceptor::compression
