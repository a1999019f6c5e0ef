#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

class BasicBlock : public torch::nn::Module {
 public:
  static constexpr int kExpansion = 1;
  BasicBlock(int in, int out, int stride) : stride_(stride) {
    conv1_ = register_module("conv1", conv(in, out, 3, stride));
    bn1_ = register_module("bn1", norm(out));
    conv2_ = register_module("conv2", conv(out, out, 3));
    bn2_ = register_module("bn2", norm(out));
    if (stride != 1 || in != out)
      downsample_ = register_module("downsample", Chain(conv(in, out, 1), norm(out)));
  }
  torch::Tensor forward(torch::Tensor x) {
    auto y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y));
    return (y + (downsample_ ? downsample_->forward(every(stride_, x)) : x)).relu_();
  }

 private:
  int stride_;
  Conv2d conv1_{nullptr}, conv2_{nullptr};
  BatchNorm2d bn1_{nullptr}, bn2_{nullptr};
  Chain downsample_{nullptr};
};

/// 1×1 down, 3×3, 1×1 up to four times the channels. The 3×3 strides, not the first 1×1 as in the paper: torchvision's
/// and MedMNIST's choice, which loses less of the image.
class Bottleneck : public torch::nn::Module {
 public:
  static constexpr int kExpansion = 4;
  Bottleneck(int in, int out, int stride) : stride_(stride) {
    const int inner = out / kExpansion;
    conv1_ = register_module("conv1", conv(in, inner, 1));
    bn1_ = register_module("bn1", norm(inner));
    conv2_ = register_module("conv2", conv(inner, inner, 3, stride));
    bn2_ = register_module("bn2", norm(inner));
    conv3_ = register_module("conv3", conv(inner, out, 1));
    bn3_ = register_module("bn3", norm(out));
    if (stride != 1 || in != out)
      downsample_ = register_module("downsample", Chain(conv(in, out, 1), norm(out)));
  }
  torch::Tensor forward(torch::Tensor x) {
    auto y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y)).relu_();
    y = bn3_(conv3_(y));
    return (y + (downsample_ ? downsample_->forward(every(stride_, x)) : x)).relu_();
  }

 private:
  int stride_;
  Conv2d conv1_{nullptr}, conv2_{nullptr}, conv3_{nullptr};
  BatchNorm2d bn1_{nullptr}, bn2_{nullptr}, bn3_{nullptr};
  Chain downsample_{nullptr};
};

/// ResNet (He 2015, arXiv:1512.03385). The small stem is 3×3 with stride 1 and no pooling, as MedMNIST uses
/// at 28 px; `half` keeps the 3×3 stem and pools once.
template <class Block>
class ResNet : public Model {
 public:
  ResNet(const ModelSpec& spec, const std::array<int, 4>& repeats) : pool_(spec.model.stem != "small") {
    const int base = make_divisible(64 * spec.model.width);
    conv1_ = register_module("conv1", spec.model.stem == "standard" ? conv(spec.task.channels, base, 7, 2)
                                                                    : conv(spec.task.channels, base, 3));
    bn1_ = register_module("bn1", norm(base));
    int in = base, stage = 0;
    for (const int blocks : repeats) {
      const int out = (base << stage) * Block::kExpansion;
      Chain layer;
      for (int i = 0; i < blocks; ++i) {
        layer->push_back(Block(in, out, i == 0 && stage > 0 ? 2 : 1));
        in = out;
      }
      layers_->push_back(register_module("layer" + std::to_string(++stage), layer));
    }
    fc_ = register_module("fc", Linear(in, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override {
    x = bn1_(conv1_(x)).relu_();
    if (pool_) x = torch::max_pool2d(x, 3, 2, 1);
    return fc_(tap(global_pool(tap_children(*layers_, x))));
  }

 private:
  bool pool_;
  Conv2d conv1_{nullptr};
  BatchNorm2d bn1_{nullptr};
  Chain layers_;
  Linear fc_{nullptr};
};

std::string same(const std::string& ours) { return ours; }

const RegisterModel kResNet18{
    "resnet18",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "He 2015, arXiv:1512.03385",
     .build =
         [](const ModelSpec& spec) {
           return Result<std::shared_ptr<Model>>(std::make_shared<ResNet<BasicBlock>>(spec, std::array{2, 2, 2, 2}));
         },
     .sizes = {{"resnet18", 1}},
     .published = {{{{"resnet18", 1, "small"}, {9, 3, 28}}, 11173449, 456703488},
                   {{{"resnet18", 1, "standard"}, {9, 3, 224}}, 11181129},
                   {{{"resnet18", 1, "standard"}, {1000, 3, 224}}, 11689512, 1814073344}},
     .names = {{"torchvision", same}, {"timm", same}}}};

const RegisterModel kResNet50{
    "resnet50",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "He 2015, arXiv:1512.03385",
     .build =
         [](const ModelSpec& spec) {
           return Result<std::shared_ptr<Model>>(std::make_shared<ResNet<Bottleneck>>(spec, std::array{3, 4, 6, 3}));
         },
     .sizes = {{"resnet50", 1}},
     .published = {{{{"resnet50", 1, "small"}, {9, 3, 28}}, 23518793, 1047720960},
                   {{{"resnet50", 1, "standard"}, {9, 3, 224}}, 23526473},
                   {{{"resnet50", 1, "standard"}, {1000, 3, 224}}, 25557032, 4089184256}},
     .names = {{"torchvision", same}, {"timm", same}}}};

}  // namespace
}  // namespace preceptor::models
