#include "models/cnn/timm_names.h"
#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

Chain conv_bn_relu6(int in, int out, int kernel, int stride = 1, int groups = 1) {
  return Chain(conv(in, out, kernel, stride, groups), norm(out), relu6());
}

/// 1×1 expand, depthwise 3×3, 1×1 project without activation; residual where shapes allow.
class InvertedResidual : public torch::nn::Module {
 public:
  InvertedResidual(int in, int out, int stride, int expansion) : residual_(stride == 1 && in == out) {
    const int hidden = in * expansion;
    Chain layers;
    if (expansion != 1) layers->push_back(conv_bn_relu6(in, hidden, 1));
    layers->push_back(conv_bn_relu6(hidden, hidden, 3, stride, hidden));
    layers->push_back(conv(hidden, out, 1));
    layers->push_back(norm(out));
    conv_ = register_module("conv", layers);
  }
  torch::Tensor forward(torch::Tensor x) { return residual_ ? x + conv_->forward(x) : conv_->forward(x); }

 private:
  bool residual_;
  Chain conv_{nullptr};
};

/// MobileNetV2 (Sandler 2018, arXiv:1801.04381), without dropout: its mask would tie results to a thread.
class MobileNetV2 : public Model {
 public:
  explicit MobileNetV2(const ModelSpec& spec) {
    struct Stage {
      int expansion, channels, repeats, stride;
    };
    const bool small = spec.model.stem == "small";
    const Stage stages[] = {{1, 16, 1, 1}, {6, 24, 2, small ? 1 : 2}, {6, 32, 3, 2}, {6, 64, 4, 2},
                            {6, 96, 3, 1}, {6, 160, 3, 2},            {6, 320, 1, 1}};
    const double width = spec.model.width;
    int in = make_divisible(32 * width);
    const int last = make_divisible(1280 * std::max(1.0, width));
    Chain features;
    features->push_back(conv_bn_relu6(spec.task.channels, in, 3, spec.model.stem == "standard" ? 2 : 1));
    for (const auto& stage : stages) {
      const int out = make_divisible(stage.channels * width);
      for (int i = 0; i < stage.repeats; ++i) {
        features->push_back(InvertedResidual(in, out, i == 0 ? stage.stride : 1, stage.expansion));
        in = out;
      }
    }
    features->push_back(conv_bn_relu6(in, last, 1));
    features_ = register_module("features", features);
    // torchvision's index: classifier.0 is the dropout that is left out here.
    classifier_ = register_module("classifier", Chain(torch::nn::Identity(), Linear(last, spec.task.classes)));
  }
  torch::Tensor forward(torch::Tensor x) override { return classifier_->forward(tap(global_pool(tap_children(*features_, x, {1, 3, 6, 13, 17})))); }

 private:
  Chain features_{nullptr}, classifier_{nullptr};
};

/// timm's mobilenetv2_100 and its other widths.
std::string timm_name(const std::string& ours) {
  if (!ours.starts_with("features.")) return rename_start(ours, {{"classifier.1", "classifier"}});
  const int index = std::stoi(ours.substr(9));
  const auto inner = ours.substr(ours.find('.', 9) + 1);
  if (index == 0) return rename_start(inner, {{"0", "conv_stem"}, {"1", "bn1"}});
  if (index == 18) return rename_start(inner, {{"0", "conv_head"}, {"1", "bn2"}});
  const auto block = "blocks." + stage_and_place(index - 1, {1, 2, 3, 4, 3, 3, 1}) + ".";
  if (index == 1)  // without expansion
    return block + rename_start(inner, {{"conv.0.0", "conv_dw"}, {"conv.0.1", "bn1"}, {"conv.1", "conv_pw"}, {"conv.2", "bn2"}});
  return block + rename_start(inner, {{"conv.0.0", "conv_pw"}, {"conv.0.1", "bn1"}, {"conv.1.0", "conv_dw"},
                                      {"conv.1.1", "bn2"}, {"conv.2", "conv_pwl"}, {"conv.3", "bn3"}});
}

const RegisterModel kMobileNetV2{
    "mobilenet_v2",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "Sandler 2018, arXiv:1801.04381",
     .build = [](const ModelSpec& spec) { return Result<std::shared_ptr<Model>>(std::make_shared<MobileNetV2>(spec)); },
     .sizes = {{"mobilenet_v2", 0.35}, {"mobilenet_v2", 0.5}, {"mobilenet_v2", 1}},
     .published = {{{{"mobilenet_v2", 1, "standard"}, {1000, 3, 224}}, 3504872, 300774272},
                   {{{"mobilenet_v2", 0.5, "standard"}, {1000, 3, 224}}, 1968680, 97131840},
                   {{{"mobilenet_v2", 1, "standard"}, {9, 3, 64}}, 2235401, 24460032},
                   {{{"mobilenet_v2", 0.5, "standard"}, {9, 3, 128}}, 699209, 31310080},
                   {{{"mobilenet_v2", 1, "half"}, {9, 3, 64}}, 2235401, 97805568},
                   {{{"mobilenet_v2", 0.5, "half"}, {9, 3, 64}}, 699209, 31310080},
                   {{{"mobilenet_v2", 1, "small"}, {9, 3, 28}}, 2235401, 73388928},
                   {{{"mobilenet_v2", 0.5, "small"}, {9, 3, 28}}, 699209, 23336224},
                   {{{"mobilenet_v2", 0.35, "small"}, {9, 3, 28}}, 407657, 13066336},
                   {{{"mobilenet_v2", 0.35, "half"}, {9, 3, 64}}, 407657, 18952192}},
     .names = {{"torchvision", [](const std::string& ours) { return ours; }}, {"timm", timm_name}}}};

}  // namespace
}  // namespace preceptor::models
