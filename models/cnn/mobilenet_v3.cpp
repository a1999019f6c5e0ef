#include "models/cnn/squeeze_excite.h"
#include "models/cnn/timm_names.h"
#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

/// The ε of the published weights. torchvision's momentum of 0.01 is not taken over: it averages over hundreds of
/// steps, and a hospital's round has fewer.
BatchNorm2d norm3(int channels) { return BatchNorm2d(torch::nn::BatchNorm2dOptions(channels).eps(1e-3)); }

enum class Activation { kNone, kRelu, kHardSwish };

torch::nn::Functional hard_swish() {
  return torch::nn::Functional([](const torch::Tensor& x) { return torch::hardswish(x); });
}

Chain conv_bn(int in, int out, int kernel, Activation activation, int stride = 1, int groups = 1) {
  Chain layers(conv(in, out, kernel, stride, groups), norm3(out));
  if (activation == Activation::kRelu) layers->push_back(relu());
  if (activation == Activation::kHardSwish) layers->push_back(hard_swish());
  return layers;
}

struct BlockShape {
  int kernel, expanded, out;
  bool squeeze;
  Activation activation;
  int stride;
};

/// MobileNetV2's inverted residual with squeeze-and-excitation before the projection.
class InvertedResidual : public torch::nn::Module {
 public:
  InvertedResidual(int in, const BlockShape& shape) : residual_(shape.stride == 1 && in == shape.out) {
    Chain layers;
    if (shape.expanded != in) layers->push_back(conv_bn(in, shape.expanded, 1, shape.activation));
    layers->push_back(conv_bn(shape.expanded, shape.expanded, shape.kernel, shape.activation, shape.stride, shape.expanded));
    if (shape.squeeze) layers->push_back(SqueezeExcite(shape.expanded, torch::hardsigmoid));
    layers->push_back(conv_bn(shape.expanded, shape.out, 1, Activation::kNone));
    block_ = register_module("block", layers);
  }
  torch::Tensor forward(torch::Tensor x) { return residual_ ? x + block_->forward(x) : block_->forward(x); }

 private:
  bool residual_;
  Chain block_{nullptr};
};

/// MobileNetV3-Small (Howard 2019, arXiv:1905.02244), without dropout: its mask would tie results to a thread.
class MobileNetV3Small : public Model {
 public:
  explicit MobileNetV3Small(const ModelSpec& spec) {
    const auto re = Activation::kRelu, hs = Activation::kHardSwish;
    const BlockShape shapes[] = {{3, 16, 16, true, re, spec.model.stem == "small" ? 1 : 2},
                                 {3, 72, 24, false, re, 2},
                                 {3, 88, 24, false, re, 1},
                                 {5, 96, 40, true, hs, 2},
                                 {5, 240, 40, true, hs, 1},
                                 {5, 240, 40, true, hs, 1},
                                 {5, 120, 48, true, hs, 1},
                                 {5, 144, 48, true, hs, 1},
                                 {5, 288, 96, true, hs, 2},
                                 {5, 576, 96, true, hs, 1},
                                 {5, 576, 96, true, hs, 1}};
    const auto scaled = [&](int channels) { return make_divisible(channels * spec.model.width); };
    int in = scaled(16);
    Chain features;
    features->push_back(conv_bn(spec.task.channels, in, 3, hs, spec.model.stem == "standard" ? 2 : 1));
    for (auto shape : shapes) {
      shape.expanded = scaled(shape.expanded);
      shape.out = scaled(shape.out);
      features->push_back(InvertedResidual(in, shape));
      in = shape.out;
    }
    features->push_back(conv_bn(in, 6 * in, 1, hs));
    features_ = register_module("features", features);
    const int last = scaled(1024);
    // torchvision's indices: 1 is the activation, 2 the dropout that is left out here.
    classifier_ = register_module("classifier", Chain(Linear(6 * in, last), hard_swish(), torch::nn::Identity(),
                                                      Linear(last, spec.task.classes)));
  }
  torch::Tensor forward(torch::Tensor x) override { return classifier_->forward(tap(global_pool(tap_children(*features_, x, {1, 3, 8, 11})))); }

 private:
  Chain features_{nullptr}, classifier_{nullptr};
};

/// timm's mobilenetv3_small_100. Its conv_head is a 1×1 convolution, [1024, 576, 1, 1], after the pooling. It was
/// trained with ε = 1e-5, so its logits are matched closely, not exactly.
std::string timm_name(const std::string& ours) {
  if (!ours.starts_with("features.")) return rename_start(ours, {{"classifier.0", "conv_head"}, {"classifier.3", "classifier"}});
  const int index = std::stoi(ours.substr(9));
  const auto inner = ours.substr(ours.find('.', 9) + 1);
  if (index == 0) return rename_start(inner, {{"0", "conv_stem"}, {"1", "bn1"}});
  const auto block = "blocks." + stage_and_place(index - 1, {1, 2, 3, 2, 3, 1}) + ".";
  if (index == 12) return block + rename_start(inner, {{"0", "conv"}, {"1", "bn1"}});
  if (const auto fc = inner.find(".fc"); fc != std::string::npos)
    return block + "se." + rename_start(inner.substr(fc + 1), {{"fc1", "conv_reduce"}, {"fc2", "conv_expand"}});
  if (index == 1)  // without expansion
    return block + rename_start(inner, {{"block.0.0", "conv_dw"}, {"block.0.1", "bn1"},
                                        {"block.2.0", "conv_pw"}, {"block.2.1", "bn2"}});
  return block + rename_start(inner, {{"block.0.0", "conv_pw"}, {"block.0.1", "bn1"},
                                      {"block.1.0", "conv_dw"}, {"block.1.1", "bn2"},
                                      {"block.2.0", "conv_pwl"}, {"block.2.1", "bn3"},  // nothing is squeezed in between
                                      {"block.3.0", "conv_pwl"}, {"block.3.1", "bn3"}});
}

const RegisterModel kMobileNetV3Small{
    "mobilenet_v3_small",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "Howard 2019, arXiv:1905.02244",
     .build = [](const ModelSpec& spec) { return Result<std::shared_ptr<Model>>(std::make_shared<MobileNetV3Small>(spec)); },
     .sizes = {{"mobilenet_v3_small", 1}},
     .published = {{{{"mobilenet_v3_small", 1, "standard"}, {1000, 3, 224}}, 2542856, 56510400},
                   {{{"mobilenet_v3_small", 1, "standard"}, {9, 3, 224}}, 1527081}},
     .names = {{"torchvision", [](const std::string& ours) { return ours; }}, {"timm", timm_name}}}};

}  // namespace
}  // namespace preceptor::models
