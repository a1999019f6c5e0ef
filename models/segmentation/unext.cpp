#include "models/model.h"
#include "models/segmentation/layers.h"
#include "models/segmentation/padding.h"
#include "models/segmentation/shift.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

// Tokens are [B, H, W, C]: the same memory as images in channels_last, so that changing over is free.
torch::Tensor to_tokens(const torch::Tensor& images) { return images.permute({0, 2, 3, 1}); }
torch::Tensor to_images(const torch::Tensor& tokens) { return tokens.permute({0, 3, 1, 2}); }

class DepthwiseConv : public torch::nn::Module {
 public:
  explicit DepthwiseConv(int width) { dwconv_ = register_module("dwconv", biased_conv(width, width, 3, 1, width)); }
  torch::Tensor forward(const torch::Tensor& tokens) { return to_tokens(dwconv_(to_images(tokens))); }

 private:
  Conv2d dwconv_{nullptr};
};

/// Shift along the height, linear, depthwise 3×3, GELU, shift along the width, linear.
class ShiftedMlp : public torch::nn::Module {
 public:
  explicit ShiftedMlp(int width) {
    fc1_ = register_module("fc1", Linear(width, width));
    dwconv_ = register_module("dwconv", std::make_shared<DepthwiseConv>(width));
    fc2_ = register_module("fc2", Linear(width, width));
  }
  torch::Tensor forward(const torch::Tensor& tokens) {
    return fc2_(shift(torch::gelu(dwconv_->forward(fc1_(shift(tokens, 1)))), 2));
  }

 private:
  Linear fc1_{nullptr}, fc2_{nullptr};
  std::shared_ptr<DepthwiseConv> dwconv_;
};

class ShiftedBlock : public torch::nn::Module {
 public:
  explicit ShiftedBlock(int width) {
    norm2_ = register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
    mlp_ = register_module("mlp", std::make_shared<ShiftedMlp>(width));
  }
  torch::Tensor forward(torch::Tensor tokens) { return tokens + mlp_->forward(norm2_(tokens)); }

 private:
  torch::nn::LayerNorm norm2_{nullptr};
  std::shared_ptr<ShiftedMlp> mlp_;
};

class PatchEmbed : public torch::nn::Module {
 public:
  PatchEmbed(int in, int out) {
    proj_ = register_module("proj", biased_conv(in, out, 3, 2));
    norm_ = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({out})));
  }
  torch::Tensor forward(const torch::Tensor& images) { return norm_(to_tokens(proj_(images))); }

 private:
  Conv2d proj_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};

/// UNeXt (Valanarasu 2022, arXiv:2203.04967): three stages of one convolution, two of shifted MLPs, and the way back
/// with skips that are added. A stem that leaves poolings out leaves out the upsamplings across from them.
class UNeXt : public Model {
 public:
  using Widths = std::array<int, 5>;
  UNeXt(const ModelSpec& spec, const Widths& widths) : left_out_(left_out(spec.model.stem)) {
    const auto layer_norm = [&](const char* name, int width) {
      return register_module(name, torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
    };
    const auto block = [&](const char* name, int width) { return register_module(name, Chain(ShiftedBlock(width))); };
    for (std::size_t i = 0; i < 3; ++i) {
      const auto number = std::to_string(i + 1);
      encoder_[i] = register_module("encoder" + number, biased_conv(i == 0 ? spec.task.channels : widths[i - 1], widths[i], 3));
      ebn_[i] = register_module("ebn" + number, norm(widths[i]));
    }
    patch_embed3_ = register_module("patch_embed3", std::make_shared<PatchEmbed>(widths[2], widths[3]));
    patch_embed4_ = register_module("patch_embed4", std::make_shared<PatchEmbed>(widths[3], widths[4]));
    block1_ = block("block1", widths[3]), norm3_ = layer_norm("norm3", widths[3]);
    block2_ = block("block2", widths[4]), norm4_ = layer_norm("norm4", widths[4]);
    dblock1_ = block("dblock1", widths[3]), dnorm3_ = layer_norm("dnorm3", widths[3]);
    dblock2_ = block("dblock2", widths[2]), dnorm4_ = layer_norm("dnorm4", widths[2]);
    for (std::size_t i = 0; i < 4; ++i) {
      const auto number = std::to_string(i + 1);
      decoder_[i] = register_module("decoder" + number, biased_conv(widths[4 - i], widths[3 - i], 3));
      dbn_[i] = register_module("dbn" + number, norm(widths[3 - i]));
    }
    decoder_[4] = register_module("decoder5", biased_conv(widths[0], widths[0], 3));
    final_ = register_module("final", biased_conv(widths[0], spec.task.classes, 1));
  }

  torch::Tensor forward(torch::Tensor images) override {
    std::array<torch::Tensor, 4> skips;
    auto x = pad_to_multiple(images, 32 >> left_out_);
    for (std::size_t i = 0; i < 3; ++i) {
      x = ebn_[i](encoder_[i](x));
      if (int(i) >= left_out_) x = torch::max_pool2d(x, 2, 2);
      skips[i] = tap(x.relu_());
    }
    skips[3] = x = tap(to_images(norm3_(block1_->forward(patch_embed3_->forward(x)))));
    x = tap(to_images(norm4_(block2_->forward(patch_embed4_->forward(x)))));
    x = up(0, x) + skips[3];
    x = tap(to_images(dnorm3_(dblock1_->forward(to_tokens(x)))));
    x = up(1, x) + skips[2];
    x = tap(to_images(dnorm4_(dblock2_->forward(to_tokens(x)))));
    x = up(2, x) + skips[1];
    x = tap(up(3, x) + skips[0]);
    return crop_to(final_(up(4, x)), images.size(2), images.size(3));
  }

  void initialise(RandomStream& random) override {
    draw_grouped_and_head(*this, final_, random);
    for (auto& module : modules(/*include_self=*/false))
      if (auto* linear = module->as<Linear>()) draw(linear->weight, 0.02, random);
  }

 private:
  torch::Tensor up(std::size_t i, torch::Tensor x) {
    x = decoder_[i](x);
    if (i < dbn_.size()) x = dbn_[i](x);
    return (int(i) < 5 - left_out_ ? upsample2(x) : x).relu_();
  }

  int left_out_;
  std::array<Conv2d, 3> encoder_{nullptr, nullptr, nullptr};
  std::array<BatchNorm2d, 3> ebn_{nullptr, nullptr, nullptr};
  std::shared_ptr<PatchEmbed> patch_embed3_, patch_embed4_;
  Chain block1_{nullptr}, block2_{nullptr}, dblock1_{nullptr}, dblock2_{nullptr};
  torch::nn::LayerNorm norm3_{nullptr}, norm4_{nullptr}, dnorm3_{nullptr}, dnorm4_{nullptr};
  std::array<Conv2d, 5> decoder_{nullptr, nullptr, nullptr, nullptr, nullptr};
  std::array<BatchNorm2d, 4> dbn_{nullptr, nullptr, nullptr, nullptr};
  Conv2d final_{nullptr};
};

Result<std::shared_ptr<Model>> build_unext(const ModelSpec& spec) {
  static const std::map<std::string, UNeXt::Widths> kVariants{
      {"", {8, 16, 32, 64, 128}}, {"small", {8, 16, 32, 64, 128}}, {"base", {16, 32, 128, 160, 256}}};
  const auto found = kVariants.find(spec.model.variant);
  if (found == kVariants.end()) return fail(Code::kInvalid, "unext has variants small and base, not '{}'", spec.model.variant);
  if (spec.model.width != 1)
    return fail(Code::kInvalid, "unext has width 1 only, not {}; its sizes are variants", spec.model.width);
  if (spec.model.stem == "standard" && spec.task.image_size <= 32)
    return fail(Code::kInvalid, "unext: the standard stem leaves one token of a {} px image; take stem: small or half",
                spec.task.image_size);
  return std::make_shared<UNeXt>(spec, found->second);
}

const RegisterModel kUNeXt{"unext",
                           {.paradigm = "CNN",
                            .task = "segmentation",
                            .paper = "Valanarasu 2022, arXiv:2203.04967",
                            .build = build_unext,
                            .sizes = {{"unext", 1, "standard", "small"}, {"unext", 1, "standard", "base"}},
                            .published = {{{{"unext", 1, "standard", "small"}, {1, 3, 256}}, 253561, 99229696},
                                          {{{"unext", 1, "standard", "base"}, {1, 3, 256}}, 1471921, 562003968}}}};

}  // namespace
}  // namespace preceptor::models
