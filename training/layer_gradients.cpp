#include "training/layer_gradients.h"

#include <torch/torch.h>

#include <map>

#include "models/kernels/kernels.h"

namespace preceptor::training {
namespace {

namespace kernels = models::kernels;
using Arguments = std::vector<c10::IValue>;
using Parts = std::vector<ParameterGradients>;

/// A float written and read twice costs about as much as this many multiply-adds, which decides between an image's
/// gradient [out, in] and its two Gram matrices [T, T].
constexpr std::int64_t kMemoryCost = 32;

bool differentiated(const c10::IValue& value) { return value.isTensor() && value.toTensor().defined() && value.toTensor().requires_grad(); }
bool trained(const c10::IValue& value) { return differentiated(value) && value.toTensor().is_leaf(); }

/// [B, C, H, W] → [B, H·W, C], without a copy in channels_last.
at::Tensor pixels(const at::Tensor& x) { return x.permute({0, 2, 3, 1}).reshape({x.size(0), x.size(2) * x.size(3), x.size(1)}); }

ParameterGradients matrix(const at::Tensor& target, const at::Tensor& inputs, const at::Tensor& outputs) {
  const auto rows = inputs.size(1), in = inputs.size(2), out = outputs.size(2);
  if (rows * rows * (in + out) <= kMemoryCost * in * out) return {target, {}, inputs, outputs};
  return {target, torch::bmm(outputs.transpose(1, 2), inputs), {}, {}};
}

/// convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
Parts convolution(const Arguments& a, const at::Tensor& grad) {
  Parts parts;
  if (trained(a[2])) parts.push_back({a[2].toTensor().grad(), grad.sum({2, 3}), {}, {}});
  if (!trained(a[1])) return parts;
  const auto x = a[0].toTensor(), weight = a[1].toTensor(), target = weight.grad();
  const auto stride = a[3].toIntVector(), padding = a[4].toIntVector(), dilation = a[5].toIntVector();
  const auto groups = a[8].toInt(), images = x.size(0), out = weight.size(0), in = weight.size(1), kh = weight.size(2), kw = weight.size(3);
  const auto both = [](const std::vector<std::int64_t>& values, std::int64_t value) {
    return values == std::vector<std::int64_t>(values.size(), value);
  };
  if (groups == 1 && kh == 1 && kw == 1 && both(stride, 1) && both(padding, 0)) {
    parts.push_back(matrix(target.view({out, in}), pixels(x), pixels(grad)));
  } else if (groups == out && in == 1 && x.size(1) == out && kh == kw && (kh == 3 || kh == 5 || kh == 7) && both(dilation, 1) &&
             both(stride, stride[0]) && both(padding, padding[0])) {
    parts.push_back({target.view({out, kh, kw}).permute({1, 2, 0}),
                     kernels::depthwise_gradients(x, grad, int(kh), int(stride[0]), int(padding[0])), {}, {}});
  } else {
    const auto patches = torch::im2col(x.contiguous(), {kh, kw}, dilation, padding, stride);  // [B, groups · in · kh · kw, pixels]
    if (groups == 1) {
      parts.push_back(matrix(target.view({out, in * kh * kw}), patches.transpose(1, 2), pixels(grad)));
    } else {
      const auto count = patches.size(2);
      const auto outputs = grad.reshape({images * groups, out / groups, count});
      const auto inputs = patches.view({images * groups, in * kh * kw, count});
      parts.push_back({target, torch::bmm(outputs, inputs.transpose(1, 2)).view({images, out, in, kh, kw}), {}, {}});
    }
  }
  return parts;
}

/// linear(input, weight, bias)
Parts linear(const Arguments& a, const at::Tensor& grad) {
  const auto rows = [](const at::Tensor& x) { return x.reshape({x.size(0), -1, x.size(-1)}); };
  const auto outputs = rows(grad);
  Parts parts;
  if (trained(a[1])) parts.push_back(matrix(a[1].toTensor().grad(), rows(a[0].toTensor()), outputs));
  if (trained(a[2])) parts.push_back({a[2].toTensor().grad(), outputs.sum(1), {}, {}});
  return parts;
}

/// Of scale and shift by channel, from each image's own two gradients [B, C].
Parts affine(const c10::IValue& weight, const c10::IValue& bias, const at::Tensor& to_weight, const at::Tensor& to_bias) {
  Parts parts;
  if (trained(weight)) parts.push_back({weight.toTensor().grad(), to_weight, {}, {}});
  if (trained(bias)) parts.push_back({bias.toTensor().grad(), to_bias, {}, {}});
  return parts;
}

/// group_norm(input, groups, weight, bias, eps)
Parts group_norm(const Arguments& a, const at::Tensor& grad) {
  const auto x = a[0].toTensor();
  const auto groups = a[1].toInt();
  const double eps = a[4].toDouble();
  if (x.dim() == 4) {
    const auto both = kernels::group_norm_gradients(x, groups, eps, grad);
    return affine(a[2], a[3], both.select(1, 0), both.select(1, 1));
  }
  const auto product = grad * torch::group_norm(x, groups, {}, {}, eps);
  return affine(a[2], a[3], product.flatten(2).sum(2), grad.flatten(2).sum(2));
}

/// layer_norm(input, normalized_shape, weight, bias, eps, cudnn_enable)
Parts layer_norm(const Arguments& a, const at::Tensor& grad) {
  const auto x = a[0].toTensor();
  const auto shape = a[1].toIntVector();
  const auto normal = torch::layer_norm(x, shape, {}, {}, a[4].toDouble());
  const auto of_image = [&](const at::Tensor& t) {
    std::vector<std::int64_t> sizes{t.size(0), -1};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    return t.reshape(sizes).sum(1);
  };
  return affine(a[2], a[3], of_image(grad * normal), of_image(grad));
}

/// Whether `parameter` is spread over the images of an output [B, …] without telling them apart.
bool spreads(const at::Tensor& parameter, const at::Tensor& output) {
  return parameter.dim() < output.dim() || (parameter.dim() == output.dim() && parameter.size(0) == 1);
}

/// Sums x [B, …] to [B, … as parameter].
at::Tensor gathered(const at::Tensor& x, const at::Tensor& parameter) {
  const auto missing = x.dim() - parameter.dim();
  std::vector<std::int64_t> summed;
  for (std::int64_t d = 1; d < x.dim(); ++d)
    if (d < missing || parameter.size(d - missing) == 1) summed.push_back(d);
  std::vector<std::int64_t> sizes{x.size(0)};
  sizes.insert(sizes.end(), parameter.sizes().begin(), parameter.sizes().end());
  return (summed.empty() ? x : x.sum(summed, /*keepdim=*/true)).reshape(sizes);
}

/// add(a, b, alpha), mul(a, b), expand(a, …)
Parts added(const Arguments& a, const at::Tensor& grad) {
  Parts parts;
  for (const auto& side : {a[0], a[1]})
    if (trained(side)) parts.push_back({side.toTensor().grad(), gathered(grad, side.toTensor()), {}, {}});
  return parts;
}
Parts multiplied(const Arguments& a, const at::Tensor& grad) {
  const bool second = trained(a[1]);
  const auto parameter = a[second].toTensor(), other = a[!second].toTensor();
  return {{parameter.grad(), gathered(grad * other, parameter), {}, {}}};
}
Parts expanded(const Arguments& a, const at::Tensor& grad) { return {{a[0].toTensor().grad(), gathered(grad, a[0].toTensor()), {}, {}}}; }

struct Rule {
  /// Whether it covers this call; `is_parameter` tells by argument.
  bool (*covers)(const Arguments&, const std::vector<bool>& is_parameter, const at::Tensor& output);
  Parts (*gradients)(const Arguments&, const at::Tensor& grad);
};

bool by_image(const at::Tensor& x, const at::Tensor& output) { return x.dim() > 0 && output.dim() > 0 && x.size(0) == output.size(0); }
/// The first argument is of images, and of the others only parameters have gradients.
bool layer(const Arguments& a, const std::vector<bool>& is, const at::Tensor& output) {
  for (std::size_t i = 1; i < a.size(); ++i)
    if (differentiated(a[i]) && !is[i]) return false;
  return a[0].isTensor() && !is[0] && by_image(a[0].toTensor(), output);
}
/// One of the first two is a parameter, the other is of images.
bool spread(const Arguments& a, const std::vector<bool>& is, const at::Tensor& output) {
  const std::size_t parameter = is[1] ? 1 : 0, other = 1 - parameter;
  return is[0] != is[1] && a[other].isTensor() && by_image(a[other].toTensor(), output) && spreads(a[parameter].toTensor(), output);
}

const std::map<std::string, Rule, std::less<>>& rules() {
  static const std::map<std::string, Rule, std::less<>> all{
      {"aten::convolution",
       {[](const Arguments& a, const std::vector<bool>& is, const at::Tensor& output) {
          return layer(a, is, output) && output.dim() == 4 && !a[6].toBool();
        },
        convolution}},
      {"aten::linear", {layer, linear}},
      {"aten::layer_norm", {layer, layer_norm}},
      {"aten::group_norm", {layer, group_norm}},
      {"preceptor::group_norm", {layer, group_norm}},
      {"aten::add",
       {[](const Arguments& a, const std::vector<bool>& is, const at::Tensor& output) {
          return spread(a, is, output) && a[2].toScalar().equal(1);
        },
        added}},
      {"aten::mul", {spread, multiplied}},
      {"aten::expand",
       {[](const Arguments& a, const std::vector<bool>& is, const at::Tensor& output) { return is[0] && spreads(a[0].toTensor(), output); },
        expanded}}};
  return all;
}

/// Operators that hand their arguments to one that has a rule.
bool hands_on(std::string_view name) { return name == "aten::conv2d"; }

thread_local LayerRecorder* active = nullptr;

struct Running : at::ObserverContext {
  const Rule* rule = nullptr;
  LayerCall call;
  std::vector<bool> is_parameter;
};

}  // namespace

struct RecorderCallbacks {
  static std::unique_ptr<at::ObserverContext> before(const at::RecordFunction& record) {
    auto running = std::make_unique<Running>();
    auto* recorder = active;
    if (!recorder || recorder->inside_ > 0) return running;
    bool any = false;
    const auto inputs = record.inputs();
    for (const auto& input : inputs) {
      const bool is = input.isTensor() && recorder->is_parameter(input.toTensor());
      running->is_parameter.push_back(is);
      any = any || is;
      if (!input.isTensorList()) continue;
      for (const at::Tensor& item : input.toTensorList())
        if (recorder->is_parameter(item)) recorder->refuse(record.name());
    }
    if (!any || hands_on(record.name())) return running;
    const auto found = rules().find(std::string_view(record.name()));
    if (found == rules().end()) {
      recorder->refuse(record.name());
      return running;
    }
    running->rule = &found->second;
    running->call.name = found->first;
    running->call.arguments.assign(inputs.begin(), inputs.end());
    ++recorder->inside_;
    return running;
  }

  static void after(const at::RecordFunction& record, at::ObserverContext* context) {
    auto& running = *static_cast<Running*>(context);
    auto* recorder = active;
    if (!recorder || !running.rule) return;
    --recorder->inside_;
    const auto outputs = record.outputs();
    const auto output = outputs.size() == 1 && outputs[0].isTensor() ? outputs[0].toTensor() : at::Tensor();
    const auto& arguments = running.call.arguments;
    if (!output.defined() || !output.requires_grad() || output.dim() == 0 || output.size(0) != recorder->images_ ||
        !running.rule->covers(arguments, running.is_parameter, output))
      return recorder->refuse(running.call.name);
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (running.is_parameter[i] && ++recorder->uses_.at(arguments[i].toTensor().unsafeGetTensorImpl()) > 1)
        return recorder->refuse(running.call.name + ", a parameter's second use");
    running.call.output = torch::autograd::impl::gradient_edge(output);
    recorder->calls_.push_back(std::move(running.call));
  }
};

LayerRecorder::LayerRecorder(const std::vector<at::Tensor>& parameters, std::int64_t images) : images_(images), outer_(active) {
  for (const auto& parameter : parameters) uses_[parameter.unsafeGetTensorImpl()] = 0;
  active = this;
  handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(RecorderCallbacks::before, RecorderCallbacks::after)
                                           .needsInputs(true)
                                           .needsOutputs(true)
                                           .scopes({at::RecordScope::FUNCTION}));
}

LayerRecorder::~LayerRecorder() {
  at::removeCallback(handle_);
  active = outer_;
}

bool LayerRecorder::is_parameter(const at::Tensor& tensor) const { return tensor.defined() && uses_.contains(tensor.unsafeGetTensorImpl()); }

void LayerRecorder::refuse(const std::string& use) {
  if (!unknown_) unknown_ = use;
}

void ParameterGradients::add_squares(at::Tensor& squares) const {
  if (each.defined()) {
    squares.add_(each.flatten(1).norm(2, {1}).square());
  } else if (inputs.size(1) == 1) {
    squares.add_(inputs.flatten(1).norm(2, {1}).square() * outputs.flatten(1).norm(2, {1}).square());
  } else {
    const auto by_inputs = torch::bmm(inputs, inputs.transpose(1, 2)), by_outputs = torch::bmm(outputs, outputs.transpose(1, 2));
    squares.add_(by_inputs.mul_(by_outputs).flatten(1).sum(1).clamp_min_(0));
  }
}

void ParameterGradients::add_sum(const at::Tensor& factors) const {
  auto to = target;
  if (each.defined()) {
    to.add_(torch::mv(each.flatten(1).t(), factors).view_as(to));
    return;
  }
  const auto scale = factors.view({-1, 1, 1});
  const bool fewer_in = inputs.size(2) < outputs.size(2);
  const auto in = fewer_in ? inputs * scale : inputs, out = fewer_in ? outputs : outputs * scale;
  to.addmm_(out.reshape({-1, out.size(2)}).t(), in.reshape({-1, in.size(2)}));
}

std::vector<ParameterGradients> gradients_of(const LayerCall& call, const at::Tensor& grad) {
  return rules().at(call.name).gradients(call.arguments, grad);
}

}  // namespace preceptor::training
