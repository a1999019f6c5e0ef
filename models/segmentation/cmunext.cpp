#include "models/gelu.h"
#include "models/model.h"
#include "models/segmentation/layers.h"
#include "models/segmentation/padding.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

class ConvBlock : public torch::nn::Module {
 public:
  ConvBlock(int in, int out) { conv_ = register_module("conv", Chain(biased_conv(in, out, 3), norm(out), relu())); }
  torch::Tensor forward(torch::Tensor x) { return conv_->forward(x); }

 private:
  Chain conv_{nullptr};
};

class Residual : public torch::nn::Module {
 public:
  explicit Residual(Chain fn) { fn_ = register_module("fn", std::move(fn)); }
  torch::Tensor forward(torch::Tensor x) { return fn_->forward(x) + x; }

 private:
  Chain fn_{nullptr};
};

/// `depth` times a depthwise convolution around which the input passes, then 1×1 to four times the width and back;
/// each followed by GELU, then normalised. Last a 3×3 convolution to the next width.
class Block : public torch::nn::Module {
 public:
  Block(int in, int out, int depth, int kernel) {
    Chain block;
    for (int i = 0; i < depth; ++i)
      block->push_back(Chain(Residual(Chain(biased_conv(in, in, kernel, 1, in), ImageGelu(), norm(in))),
                             biased_conv(in, 4 * in, 1), ImageGelu(), norm(4 * in),
                             biased_conv(4 * in, in, 1), ImageGelu(), norm(in)));
    block_ = register_module("block", block);
    up_ = register_module("up", std::make_shared<ConvBlock>(in, out));
  }
  torch::Tensor forward(torch::Tensor x) { return up_->forward(block_->forward(x)); }

 private:
  Chain block_{nullptr};
  std::shared_ptr<ConvBlock> up_;
};

/// Joins the skip and what comes from below: a convolution of each alone (two groups), then 1×1 over both.
class Fusion : public torch::nn::Module {
 public:
  explicit Fusion(int width) {
    const int both = 2 * width, wide = 4 * width;
    conv_ = register_module("conv", Chain(biased_conv(both, both, 3, 1, 2), ImageGelu(), norm(both),
                                          biased_conv(both, wide, 1), ImageGelu(), norm(wide),
                                          biased_conv(wide, width, 1), ImageGelu(), norm(width)));
  }
  torch::Tensor forward(const torch::Tensor& skip, const torch::Tensor& below) {
    return conv_->forward(torch::cat({skip, below}, 1));
  }

 private:
  Chain conv_{nullptr};
};

class Upsample : public torch::nn::Module {
 public:
  explicit Upsample(bool doubles) : doubles_(doubles) {}
  torch::Tensor forward(torch::Tensor x) { return doubles_ ? upsample2(x) : x; }

 private:
  bool doubles_;
};

class UpConv : public torch::nn::Module {
 public:
  UpConv(int in, int out, bool doubles) {
    up_ = register_module("up", Chain(Upsample(doubles), biased_conv(in, out, 3), norm(out), relu()));
  }
  torch::Tensor forward(torch::Tensor x) { return up_->forward(x); }

 private:
  Chain up_{nullptr};
};

struct Size {
  std::array<int, 5> widths, depths, kernels;
};

/// CMUNeXt (Tang 2023, arXiv:2308.01239): a U-Net of depthwise convolutions with large kernels. A stem that leaves
/// poolings out leaves out the upsamplings across from them.
class CMUNeXt : public Model {
 public:
  CMUNeXt(const ModelSpec& spec, const Size& size) : left_out_(left_out(spec.model.stem)) {
    const auto& widths = size.widths;
    stem_ = register_module("stem", std::make_shared<ConvBlock>(spec.task.channels, widths[0]));
    for (std::size_t i = 0; i < 5; ++i)
      encoder_[i] = register_module("encoder" + std::to_string(i + 1),
                                    std::make_shared<Block>(widths[i ? i - 1 : 0], widths[i], size.depths[i], size.kernels[i]));
    for (std::size_t i = 4; i > 0; --i) {
      const auto number = std::to_string(i + 1);
      up_[i] = register_module("Up" + number, std::make_shared<UpConv>(widths[i], widths[i - 1], pools_before(i)));
      fusion_[i] = register_module("Up_conv" + number, std::make_shared<Fusion>(widths[i - 1]));
    }
    head_ = register_module("Conv_1x1", biased_conv(widths[0], spec.task.classes, 1));
  }

  torch::Tensor forward(torch::Tensor images) override {
    std::array<torch::Tensor, 5> skips;
    auto x = stem_->forward(pad_to_multiple(images, 16 >> left_out_));
    for (std::size_t i = 0; i < 5; ++i) {
      if (pools_before(i)) x = torch::max_pool2d(x, 2, 2);
      skips[i] = x = tap(encoder_[i]->forward(x));
    }
    for (std::size_t i = 4; i > 0; --i) x = tap(fusion_[i]->forward(skips[i - 1], up_[i]->forward(x)));
    return crop_to(head_(x), images.size(2), images.size(3));
  }

  void initialise(RandomStream& random) override { draw_grouped_and_head(*this, head_, random); }

 private:
  bool pools_before(std::size_t stage) const { return int(stage) > left_out_; }

  int left_out_;
  std::shared_ptr<ConvBlock> stem_;
  std::array<std::shared_ptr<Block>, 5> encoder_;
  std::array<std::shared_ptr<UpConv>, 5> up_;      // from stage i to i − 1; none at 0
  std::array<std::shared_ptr<Fusion>, 5> fusion_;  // with stage i − 1
  Conv2d head_{nullptr};
};

Result<std::shared_ptr<Model>> build_cmunext(const ModelSpec& spec) {
  static const Size kSmall{{8, 16, 32, 64, 128}, {1, 1, 1, 1, 1}, {3, 3, 7, 7, 9}};
  static const std::map<std::string, Size> kVariants{{"", kSmall},
                                                     {"small", kSmall},
                                                     {"base", {{16, 32, 128, 160, 256}, {1, 1, 1, 3, 1}, {3, 3, 7, 7, 7}}},
                                                     {"large", {{32, 64, 128, 256, 512}, {1, 1, 1, 6, 3}, {3, 3, 7, 7, 7}}}};
  const auto found = kVariants.find(spec.model.variant);
  if (found == kVariants.end())
    return fail(Code::kInvalid, "cmunext has variants small, base and large, not '{}'", spec.model.variant);
  if (spec.model.width != 1)
    return fail(Code::kInvalid, "cmunext has width 1 only, not {}; its sizes are variants", spec.model.width);
  return std::make_shared<CMUNeXt>(spec, found->second);
}

const RegisterModel kCMUNeXt{
    "cmunext",
    {.paradigm = "CNN",
     .task = "segmentation",
     .paper = "Tang 2023, arXiv:2308.01239",
     .build = build_cmunext,
     .sizes = {{"cmunext", 1, "standard", "small"}, {"cmunext", 1, "standard", "base"}, {"cmunext", 1, "standard", "large"}},
     .published = {{{{"cmunext", 1, "standard", "small"}, {1, 3, 256}}, 417505, 1012383744},
                   {{{"cmunext", 1, "standard", "base"}, {1, 3, 256}}, 3149185, 7230627840},
                   {{{"cmunext", 1, "standard", "large"}, {1, 3, 256}}, 8286721, 16853434368}}}};

}  // namespace
}  // namespace preceptor::models
