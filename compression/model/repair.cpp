#include "compression/model/repair.h"

#include <torch/torch.h>

#include <functional>
#include <optional>

#include "compression/model/restructure.h"
#include "models/adaptable.h"
#include "models/graph.h"
#include "models/structure.h"

namespace preceptor::compression {
namespace {

using models::Adaptable;
using models::Graph;
using models::Node;

constexpr int kSweeps = 20;                              ///< over all pairs: a layer in two pairs needs a few
constexpr double kLargestFactor = 100, kSmallest = 1e-8;  ///< channels that are all zero stay

/// "features.0.conv" of "features.0.conv.weight", where the node's weight is a parameter of the network.
std::optional<std::string> layer_of(const Graph& graph, const Node& node) {
  if (node.op != "convolution" && node.op != "linear") return {};
  const auto& weight = graph.values[std::size_t(node.input("weight"))];
  if (weight.kind != models::GraphValue::Kind::kParameter || !weight.name.ends_with(".weight")) return {};
  return weight.name.substr(0, weight.name.rfind('.'));
}

/// A layer, and what alone takes its output.
struct Link {
  std::string layer, norm, next;  ///< norm, next: "" where there is none such
};

Link follow(const Graph& graph, const std::vector<std::vector<int>>& consumers, const std::string& layer, int value) {
  Link link{layer, "", ""};
  bool bent = false;  // behind an activation or pooling a norm is no longer the layer's
  while (value != graph.logits && consumers[std::size_t(value)].size() == 1) {
    const auto& node = graph.nodes[std::size_t(consumers[std::size_t(value)][0])];
    if (node.op == "batch_norm" && link.norm.empty() && !bent) {
      const auto& name = graph.values[std::size_t(node.input("running_mean"))].name;
      link.norm = name.substr(0, name.rfind('.'));
    } else if (node.op == "relu" || node.op == "max_pool2d" || node.op == "avg_pool2d") {
      bent = true;
    } else {
      if (node.op == "convolution" && node.input("input") == value) link.next = layer_of(graph, node).value_or("");
      break;
    }
    value = node.outputs[0];
  }
  return link;
}

std::vector<Link> links(const Graph& graph) {
  const auto consumers = graph.consumers();
  std::vector<Link> found;
  for (const auto& node : graph.nodes)
    if (const auto layer = layer_of(graph, node)) found.push_back(follow(graph, consumers, *layer, node.outputs[0]));
  return found;
}

/// Largest magnitude of each output channel of [out, …].
at::Tensor range_of(const at::Tensor& weight) { return weight.abs().flatten(1).amax(1); }

class Pair {
 public:
  Pair(std::map<std::string, at::Tensor>& tensors, const Link& link)
      : first_(tensors.at(link.layer + ".weight")), second_(tensors.at(link.next + ".weight")) {
    const auto optional = [&](const std::string& name) { return tensors.contains(name) ? tensors.at(name) : at::Tensor(); };
    if (link.norm.empty()) {
      bias_ = optional(link.layer + ".bias");
    } else {
      norm_ = tensors.at(link.norm + ".weight");
      bias_ = tensors.at(link.norm + ".bias");
      deviation_ = (tensors.at(link.norm + ".running_var") + 1e-5).sqrt();
    }
  }
  /// A channel of the first is one of the second: ungrouped, or depthwise with one filter a channel.
  bool fits() const { return second_.size(1) == first_.size(0) || depthwise(); }

  /// Returns the largest |log s|.
  double equalise() {
    const auto before = norm_.defined() ? range_of(first_) * norm_.abs() / deviation_ : range_of(first_);
    const auto after = range_of(depthwise() ? second_ : second_.transpose(0, 1));
    auto factor = (before / after).sqrt().clamp(1 / kLargestFactor, kLargestFactor);
    factor = torch::where((before > kSmallest) & (after > kSmallest), factor, torch::ones_like(factor));
    const auto divide = [&](const at::Tensor& tensor) { tensor.div_(factor.view(shape(tensor.dim(), 0))); };
    divide(norm_.defined() ? norm_ : first_);
    if (bias_.defined()) divide(bias_);
    second_.mul_(factor.view(shape(second_.dim(), depthwise() ? 0 : 1)));
    return factor.log().abs().max().item<double>();
  }

 private:
  bool depthwise() const { return second_.size(1) == 1 && second_.size(0) == first_.size(0) && first_.size(0) > 1; }
  /// [1, …, −1, …, 1] with −1 at `at`.
  static std::vector<std::int64_t> shape(std::int64_t dims, std::size_t at) {
    std::vector<std::int64_t> ones(std::size_t(dims), 1);
    ones[at] = -1;
    return ones;
  }
  at::Tensor first_, second_, norm_, bias_, deviation_;
};

/// Mean of each channel of a convolution's output [B, C, H, W] or a linear layer's […, C]: C values, shaped to be subtracted.
at::Tensor channel_mean(const at::Tensor& output, bool convolution) {
  return convolution ? output.mean({0, 2, 3}, /*keepdim=*/true) : output.flatten(0, -2).mean(0);
}

using See = std::function<void(const std::string& layer, at::Tensor& output)>;

/// Runs the images through the network, with `see` called for these layers.
void run_watched(models::FlatModel& model, const std::vector<std::string>& names, const at::Tensor& images, const See& see) {
  const auto layers = models::adaptable_layers(model.network());
  const auto layer = [&](const std::string& name) -> Adaptable& { return dynamic_cast<Adaptable&>(*layers.at(name)); };
  for (const auto& name : names) layer(name).watch([&see, name](const at::Tensor&, at::Tensor& output) { see(name, output); });
  model.network().eval();
  model.forward(images);
  for (const auto& name : names) layer(name).watch({});
}

}  // namespace

Result<int> equalise(models::FlatModel& model) {
  const auto graph = TRY(models::trace(model.network(), model.spec().task));
  torch::NoGradGuard no_grad;
  auto tensors = tensors_of(model);
  std::vector<Pair> pairs;
  for (const auto& link : links(graph)) {
    if (link.next.empty()) continue;
    Pair pair(tensors, link);
    if (pair.fits()) pairs.push_back(pair);
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double change = 0;
    for (auto& pair : pairs) change = std::max(change, pair.equalise());
    if (change < 1e-3) break;
  }
  return int(pairs.size());
}

Result<void> correct_bias(models::FlatModel& rounded, models::FlatModel& exact, const at::Tensor& images) {
  const auto graph = TRY(models::trace(exact.network(), exact.spec().task));
  torch::NoGradGuard no_grad;
  auto tensors = tensors_of(rounded);
  std::map<std::string, at::Tensor> running_means;  // of the norms behind layers
  for (const auto& link : links(graph))
    if (!link.norm.empty()) running_means[link.layer] = tensors.at(link.norm + ".running_mean");
  std::vector<std::string> names;
  for (const auto& [name, edit] : rounded.spec().structure.int8)
    if (tensors.contains(name + ".bias") || running_means.contains(name)) names.push_back(name);
  const auto mean_of = [&](const std::string& name, const at::Tensor& output) {
    return channel_mean(output, tensors.at(name + ".weight").dim() == 4);
  };
  std::map<std::string, at::Tensor> wanted;
  run_watched(exact, names, images, [&](const std::string& name, at::Tensor& output) { wanted.emplace(name, mean_of(name, output)); });
  run_watched(rounded, names, images, [&](const std::string& name, at::Tensor& output) {
    const auto mean = wanted.extract(name);
    if (mean.empty()) return;  // a second call of the same layer
    const auto shift = mean_of(name, output) - mean.mapped();
    if (const auto bias = tensors.find(name + ".bias"); bias != tensors.end()) {
      bias->second.sub_(shift.flatten());
      output = output - shift;
    } else {
      running_means.at(name).add_(shift.flatten());  // the norm, which comes next, subtracts it from this output too
    }
  });
  return {};
}

}  // namespace preceptor::compression
