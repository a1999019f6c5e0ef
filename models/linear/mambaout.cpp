#include "models/linear/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

constexpr double kEpsilon = 1e-6;

/// Two convolutions 3×3, each normalised.
class Stem : public torch::nn::Module {
 public:
  Stem(int in, int out, int stride1, int stride2) {
    conv1_ = register_module("conv1", token_conv(in, out / 2, 3, stride1));
    norm1_ = register_module("norm1", layer_norm(out / 2, kEpsilon));
    conv2_ = register_module("conv2", token_conv(out / 2, out, 3, stride2));
    norm2_ = register_module("norm2", layer_norm(out, kEpsilon));
  }
  torch::Tensor forward(const torch::Tensor& images) {
    const auto x = torch::gelu(norm1_(to_tokens(conv1_(images))));
    return norm2_(to_tokens(conv2_(to_images(x))));
  }

 private:
  Conv2d conv1_{nullptr}, conv2_{nullptr};
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
};

class Downsample : public torch::nn::Module {
 public:
  Downsample(int in, int out) {
    conv_ = register_module("conv", token_conv(in, out, 3, 2));
    norm_ = register_module("norm", layer_norm(out, kEpsilon));
  }
  torch::Tensor forward(const torch::Tensor& tokens) { return norm_(to_tokens(conv_(to_images(tokens)))); }

 private:
  Conv2d conv_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};

/// Gated CNN block: Mamba's block without its state space. A depthwise 7×7 sees as many of the hidden channels as the
/// block has outside; the others pass.
class GatedConv : public torch::nn::Module {
 public:
  explicit GatedConv(int width) {
    const int hidden = int(8.0 / 3.0 * width);
    norm_ = register_module("norm", layer_norm(width, kEpsilon));
    fc1_ = register_module("fc1", linear(width, 2 * hidden));
    conv_ = register_module("conv", token_conv(width, width, 7, 1, width));
    fc2_ = register_module("fc2", linear(hidden, width));
  }
  torch::Tensor forward(torch::Tensor x) {
    const auto wide = fc1_(norm_(x).flatten(1, 2)).view({x.size(0), x.size(1), x.size(2), -1});
    const auto hidden = wide.size(3) / 2, convolved = conv_->weight.size(0);
    const auto parts = wide.split_with_sizes({hidden, hidden - convolved, convolved}, 3);
    const auto seen = to_tokens(conv_(to_images(parts[2])));
    // Of a tensor with gaps LibTorch takes GELU five to nine times as slowly.
    const auto gated = torch::gelu(parts[0].contiguous()) * torch::cat({parts[1], seen}, 3);
    return x + fc2_(gated.flatten(1, 2)).view(x.sizes());
  }

 private:
  torch::nn::LayerNorm norm_{nullptr};
  Linear fc1_{nullptr}, fc2_{nullptr};
  Conv2d conv_{nullptr};
};

class Stage : public torch::nn::Module {
 public:
  Stage(int in, int out, int depth) {
    if (in != out) downsample_ = register_module("downsample", std::make_shared<Downsample>(in, out));
    blocks_ = register_module("blocks", Chain());
    for (int i = 0; i < depth; ++i) blocks_->push_back(GatedConv(out));
  }
  torch::Tensor forward(torch::Tensor x) { return tap_tokens(blocks_->forward(downsample_ ? downsample_->forward(x) : x)); }

 private:
  std::shared_ptr<Downsample> downsample_;
  Chain blocks_{nullptr};
};

class Head : public torch::nn::Module {
 public:
  Head(int width, int classes) {
    norm_ = register_module("norm", layer_norm(width, kEpsilon));
    pre_logits_ = register_module("pre_logits", Chain());
    pre_logits_->push_back("fc", linear(width, 4 * width));
    pre_logits_->push_back("act", torch::nn::GELU());
    pre_logits_->push_back("norm", layer_norm(4 * width, kEpsilon));
    fc_ = register_module("fc", linear(4 * width, classes));
  }
  torch::Tensor forward(const torch::Tensor& tokens) { return fc_(pre_logits_->forward(norm_(tap(tokens.mean({1, 2}))))); }

 private:
  torch::nn::LayerNorm norm_{nullptr};
  Chain pre_logits_{nullptr};
  Linear fc_{nullptr};
};

struct Size {
  std::array<int, 4> widths, depths;
};

/// MambaOut (Yu 2024, arXiv:2405.07992): a network of Mamba blocks with the state space taken out. It stands among the
/// models of linear complexity as their control: what one of them gains over it, its state space has earned.
/// Variant micro has the widths and depths of MedMamba's.
class MambaOut : public Model {
 public:
  MambaOut(const ModelSpec& spec, const Size& size) {
    const auto& stem = spec.model.stem;
    stem_ = register_module("stem", std::make_shared<Stem>(spec.task.channels, size.widths[0], stem == "standard" ? 2 : 1,
                                                           stem == "small" ? 1 : 2));
    stages_ = register_module("stages", Chain());
    for (std::size_t i = 0; i < 4; ++i)
      stages_->push_back(Stage(size.widths[i == 0 ? 0 : i - 1], size.widths[i], size.depths[i]));
    head_ = register_module("head", std::make_shared<Head>(size.widths[3], spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor images) override { return head_->forward(stages_->forward(stem_->forward(images))); }

  void initialise(RandomStream& random) override {
    draw_weights<Conv2d>(*this, random);
    draw_weights<Linear>(*this, random);
  }

 private:
  std::shared_ptr<Stem> stem_;
  Chain stages_{nullptr};
  std::shared_ptr<Head> head_;
};

Result<std::shared_ptr<Model>> build_mambaout(const ModelSpec& spec) {
  static const Size kMicro{{32, 64, 128, 256}, {1, 1, 2, 1}}, kFemto{{48, 96, 192, 288}, {3, 3, 9, 3}};
  static const std::map<std::string, Size> kVariants{{"", kMicro}, {"micro", kMicro}, {"femto", kFemto}};
  const auto found = kVariants.find(spec.model.variant);
  if (found == kVariants.end())
    return fail(Code::kInvalid, "mambaout has variants micro and femto, not '{}'", spec.model.variant);
  if (spec.model.width != 1)
    return fail(Code::kInvalid, "mambaout has width 1 only, not {}; its sizes are variants", spec.model.width);
  return std::make_shared<MambaOut>(spec, found->second);
}

const RegisterModel kMambaOut{
    "mambaout",
    {.paradigm = "linear",
     .task = "classification",
     .paper = "Yu 2024, arXiv:2405.07992",
     .build = build_mambaout,
     .sizes = {{"mambaout", 1, "small", "micro"}, {"mambaout", 1, "small", "femto"}},
     .published = {{{{"mambaout", 1, "standard", "femto"}, {1000, 3, 224}}, 7304536, 1147984992},
                   {{{"mambaout", 1, "standard", "femto"}, {9, 3, 224}}, 6161913}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
