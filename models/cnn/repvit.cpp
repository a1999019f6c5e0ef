#include "models/cnn/reparameterise.h"
#include "models/cnn/squeeze_excite.h"
#include "models/gelu.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

ConvNorm conv_norm(int in, int out, int kernel, int stride = 1, int groups = 1) {
  return ConvNorm("c", conv(in, out, kernel, stride, groups));
}

/// Mixes tokens: depthwise 3×3 with batch norm, depthwise 1×1 with bias and the input, added; batch norm.
class TokenMixer : public Fusible {
 public:
  explicit TokenMixer(int channels) {
    conv_ = register_module("conv", conv_norm(channels, channels, 3, 1, channels));
    conv1_ = register_module("conv1", Conv2d(torch::nn::Conv2dOptions(channels, channels, 1).groups(channels)));
    norm_ = register_module("bn", norm(channels));
  }
  torch::Tensor forward(const torch::Tensor& x) { return fused_ ? fused_(x) : norm_(conv_(x) + conv1_(x) + x); }
  bool fused() const override { return bool(fused_); }
  void fuse() override {
    if (fused_) return;
    const auto like = conv_->conv_layer();
    const auto sum = conv_->kernel() + kernel_of(conv1_) + identity_kernel(like);
    const auto kernel = fold(sum, norm_);
    for (const auto& child : named_children().keys()) unregister_module(child);
    conv_ = nullptr;
    conv1_ = nullptr;
    norm_ = nullptr;
    fused_ = register_module("reparam_conv", convolution(kernel, like));
  }

 private:
  ConvNorm conv_{nullptr};
  Conv2d conv1_{nullptr}, fused_{nullptr};
  BatchNorm2d norm_{nullptr};
};

/// Mixes channels, as a residual: 1×1 to twice the channels, GELU, 1×1.
class ChannelMixer : public torch::nn::Module {
 public:
  explicit ChannelMixer(int channels) {
    conv1_ = register_module("conv1", conv_norm(channels, 2 * channels, 1));
    conv2_ = register_module("conv2", conv_norm(2 * channels, channels, 1));
  }
  torch::Tensor forward(const torch::Tensor& x) { return x + conv2_(image_gelu(conv1_(x))); }
  void start_as_identity() { conv2_->norm_layer()->weight.zero_(); }

 private:
  ConvNorm conv1_{nullptr}, conv2_{nullptr};
};

class Block : public torch::nn::Module {
 public:
  Block(int channels, bool squeeze) {
    token_mixer_ = register_module("token_mixer", std::make_shared<TokenMixer>(channels));
    if (squeeze) se_ = register_module("se", SqueezeExcite(channels, torch::sigmoid));
    channel_mixer_ = register_module("channel_mixer", std::make_shared<ChannelMixer>(channels));
  }
  torch::Tensor forward(torch::Tensor x) {
    x = token_mixer_->forward(x);
    return channel_mixer_->forward(se_ ? se_(x) : x);
  }

 private:
  std::shared_ptr<TokenMixer> token_mixer_;
  SqueezeExcite se_{nullptr};
  std::shared_ptr<ChannelMixer> channel_mixer_;
};

/// Between stages: a block, depthwise 3×3 with stride 2, 1×1 to the new channels, a channel mixer.
class Downsample : public torch::nn::Module {
 public:
  Downsample(int in, int out) {
    pre_block_ = register_module("pre_block", std::make_shared<Block>(in, false));
    spatial_ = register_module("spatial_downsample", conv_norm(in, in, 3, 2, in));
    channel_ = register_module("channel_downsample", conv_norm(in, out, 1));
    ffn_ = register_module("ffn", std::make_shared<ChannelMixer>(out));
  }
  torch::Tensor forward(const torch::Tensor& x) { return ffn_->forward(channel_(spatial_(pre_block_->forward(x)))); }

 private:
  std::shared_ptr<Block> pre_block_;
  ConvNorm spatial_{nullptr}, channel_{nullptr};
  std::shared_ptr<ChannelMixer> ffn_;
};

class Stage : public torch::nn::Module {
 public:
  Stage(int in, int out, int blocks) {
    if (in != out) downsample_ = register_module("downsample", std::make_shared<Downsample>(in, out));
    for (int i = 0; i < blocks; ++i) blocks_->push_back(Block(out, i % 2 == 0));
    register_module("blocks", blocks_);
  }
  torch::Tensor forward(const torch::Tensor& x) { return blocks_->forward(downsample_ ? downsample_->forward(x) : x); }

 private:
  std::shared_ptr<Downsample> downsample_;
  Chain blocks_;
};

/// Batch norm, then a linear layer.
class NormLinear : public torch::nn::Module {
 public:
  NormLinear(int channels, int classes) {
    norm_ = register_module("bn", torch::nn::BatchNorm1d(channels));
    linear_ = register_module("l", Linear(channels, classes));
  }
  torch::Tensor forward(const torch::Tensor& x) { return linear_(norm_(x)); }
  /// Weight and bias of the linear layer that does the same in evaluation mode; float64.
  Kernel kernel() const {
    const auto scale = norm_->weight.to(torch::kFloat64) / (norm_->running_var.to(torch::kFloat64) + norm_->options.eps()).sqrt();
    const auto shift = norm_->bias - norm_->running_mean * scale;
    const auto weight = linear_->weight.to(torch::kFloat64);
    return {weight * scale, weight.mv(shift) + linear_->bias};
  }

 private:
  torch::nn::BatchNorm1d norm_{nullptr};
  Linear linear_{nullptr};
};

/// One classifier for the labels, one for a teacher; for inference their mean, which is linear as well.
class Head : public Fusible {
 public:
  Head(int channels, int classes) {
    label_ = register_module("head", std::make_shared<NormLinear>(channels, classes));
    teacher_ = register_module("head_dist", std::make_shared<NormLinear>(channels, classes));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    if (fused_) return fused_(x);
    const auto both = torch::stack({label_->forward(x), teacher_->forward(x)}, 1);
    return is_training() ? both : both.mean(1);
  }
  bool fused() const override { return bool(fused_); }
  void fuse() override {
    if (fused_) return;
    const auto label = label_->kernel(), teacher = teacher_->kernel();
    Linear linear(label.weight.size(1), label.weight.size(0));
    linear->to(label.weight.device());
    linear->weight.copy_((label.weight + teacher.weight) / 2);
    linear->bias.copy_((label.bias + teacher.bias) / 2);
    for (const auto& child : named_children().keys()) unregister_module(child);
    label_ = teacher_ = nullptr;
    fused_ = register_module("head", linear);
  }

 private:
  std::shared_ptr<NormLinear> label_, teacher_;
  Linear fused_{nullptr};
};

/// RepViT-M0.9 (Wang 2023, arXiv:2307.09283); timm's names. The half stem leaves out the first stride, the small one both.
class RepViT : public Model {
 public:
  explicit RepViT(const ModelSpec& spec) {
    const auto& stem = spec.model.stem;
    const int channels[] = {48, 96, 192, 384}, blocks[] = {2, 2, 14, 2};
    int in = channels[0];
    const auto stem_module = register_module("stem", std::make_shared<torch::nn::Module>("stem"));
    stem1_ = stem_module->register_module("conv1", conv_norm(spec.task.channels, in / 2, 3, stem == "standard" ? 2 : 1));
    stem2_ = stem_module->register_module("conv2", conv_norm(in / 2, in, 3, stem == "small" ? 1 : 2));
    for (int s = 0; s < 4; ++s) {
      stages_->push_back(Stage(in, channels[s], blocks[s]));
      in = channels[s];
    }
    register_module("stages", stages_);
    head_ = register_module("head", std::make_shared<Head>(in, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override {
    return head_->forward(tap(global_pool(tap_children(*stages_, stem2_(image_gelu(stem1_(x)))))));
  }
  /// As published: every channel mixer starts as the identity.
  void initialise(RandomStream& /*random*/) override {
    for (const auto& module : modules(/*include_self=*/false))
      if (auto* mixer = module->as<ChannelMixer>()) mixer->start_as_identity();
  }
  void fuse() override { fuse_parts(*this); }

 private:
  ConvNorm stem1_{nullptr}, stem2_{nullptr};
  Chain stages_;
  std::shared_ptr<Head> head_;
};

Result<std::shared_ptr<Model>> build_repvit(const ModelSpec& spec) {
  if (spec.model.width != 1) return fail(Code::kInvalid, "repvit has width 1, not {}", spec.model.width);
  if (!spec.model.variant.empty() && spec.model.variant != "m0_9")
    return fail(Code::kInvalid, "repvit has the variant m0_9, not '{}'", spec.model.variant);
  return std::make_shared<RepViT>(spec);
}

// The published counts before fuse() include both classifiers.
const RegisterModel kRepViT{
    "repvit",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "Wang 2023, arXiv:2307.09283",
     .build = build_repvit,
     .sizes = {{"repvit", 1, "small", "m0_9"}},
     .published = {{{{"repvit", 1, "standard", "m0_9"}, {1000, 3, 224}}, 5489328, 817280832},
                   {{{"repvit", 1, "standard", "m0_9"}, {1000, 3, 224}}, 5067056, 815617344, true},
                   {{{"repvit", 1, "standard", "m0_9"}, {9, 3, 224}}, 4726258},
                   {{{"repvit", 1, "standard", "m0_9"}, {9, 3, 64}}, 4685521, 66744960, true},
                   {{{"repvit", 1, "standard", "m0_9"}, {9, 3, 128}}, 4685521, 266342784, true},
                   {{{"repvit", 1, "standard", "m0_9"}, {9, 3, 224}}, 4685521, 815236800, true}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
