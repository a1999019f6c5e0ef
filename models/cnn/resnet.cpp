#include "models/layers.h"
#include "models/model.h"

namespace preceptor::models {
namespace {

class BasicBlock : public torch::nn::Module {
 public:
  BasicBlock(int in, int out, int stride) {
    conv1_ = register_module("conv1", conv(in, out, 3, stride));
    bn1_ = register_module("bn1", norm(out));
    conv2_ = register_module("conv2", conv(out, out, 3));
    bn2_ = register_module("bn2", norm(out));
    if (stride != 1 || in != out)
      downsample_ = register_module("downsample", Chain(conv(in, out, 1, stride), norm(out)));
  }
  torch::Tensor forward(torch::Tensor x) {
    auto y = bn1_(conv1_(x)).relu_();
    y = bn2_(conv2_(y));
    return (y + (downsample_ ? downsample_->forward(x) : x)).relu_();
  }

 private:
  torch::nn::Conv2d conv1_{nullptr}, conv2_{nullptr};
  torch::nn::BatchNorm2d bn1_{nullptr}, bn2_{nullptr};
  Chain downsample_{nullptr};
};

/// ResNet-18 (He 2015, arXiv:1512.03385). The small stem is 3×3 with stride 1 and no pooling, as MedMNIST uses
/// at 28 px; `half` keeps the 3×3 stem and pools once.
class ResNet18 : public Model {
 public:
  explicit ResNet18(const ModelSpec& spec) : pool_(spec.model.stem != "small") {
    const int base = make_divisible(64 * spec.model.width);
    conv1_ = register_module("conv1", spec.model.stem == "standard" ? conv(spec.task.channels, base, 7, 2)
                                                                    : conv(spec.task.channels, base, 3));
    bn1_ = register_module("bn1", norm(base));
    int in = base;
    for (int stage = 0; stage < 4; ++stage) {
      const int out = base << stage;
      Chain layer;
      layer->push_back(BasicBlock(in, out, stage == 0 ? 1 : 2));
      layer->push_back(BasicBlock(out, out, 1));
      layers_->push_back(register_module("layer" + std::to_string(stage + 1), layer));
      in = out;
    }
    fc_ = register_module("fc", torch::nn::Linear(in, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override {
    x = bn1_(conv1_(x)).relu_();
    if (pool_) x = torch::max_pool2d(x, 3, 2, 1);
    return fc_(global_pool(layers_->forward(x)));
  }

 private:
  bool pool_;
  torch::nn::Conv2d conv1_{nullptr};
  torch::nn::BatchNorm2d bn1_{nullptr};
  Chain layers_;
  torch::nn::Linear fc_{nullptr};
};

const RegisterModel kResNet18{
    "resnet18",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "He 2015, arXiv:1512.03385",
     .build = [](const ModelSpec& spec) { return Result<std::shared_ptr<Model>>(std::make_shared<ResNet18>(spec)); },
     .sizes = {{"resnet18", 1}},
     .published = {{{{"resnet18", 1, "small"}, {9, 3, 28}}, 11173449, 456703488},
                   {{{"resnet18", 1, "standard"}, {9, 3, 224}}, 11181129},
                   {{{"resnet18", 1, "standard"}, {1000, 3, 224}}, 11689512, 1814073344}},
     .names = {{"torchvision", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
