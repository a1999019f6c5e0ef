#include "models/kernels/dispatch.h"
#include "models/model.h"
#include "models/segmentation/layers.h"
#include "models/segmentation/padding.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

/// Convolution, instance normalisation, LeakyReLU.
class ConvNorm : public torch::nn::Module {
 public:
  ConvNorm(int in, int out, int stride) {
    conv_ = register_module("conv", biased_conv(in, out, 3, stride));
    norm_ = register_module("norm", torch::nn::InstanceNorm2d(torch::nn::InstanceNorm2dOptions(out).affine(true)));
  }
  torch::Tensor forward(torch::Tensor x) {
    auto y = normalise(conv_(x));
    return torch::leaky_relu_(y, 0.01);
  }

 private:
  /// instance_norm, which would copy to NCHW and refuse a single pixel. Group norm is the same, but slow in channels_last;
  /// batch norm of each sample by itself is not; but of a traced network the number of samples is open.
  torch::Tensor normalise(const torch::Tensor& x) {
    const auto &weight = norm_->weight, &bias = norm_->bias;
    const double eps = norm_->options.eps();
    if (x.is_contiguous() || kernels::tracing()) return torch::group_norm(x, x.size(1), weight, bias, eps);
    auto samples = x.split(1);
    for (auto& sample : samples) sample = torch::batch_norm(sample, weight, bias, {}, {}, true, 0, eps, false);
    return samples.size() == 1 ? samples[0] : torch::cat(samples);
  }

  Conv2d conv_{nullptr};
  torch::nn::InstanceNorm2d norm_{nullptr};
};

class Stage : public torch::nn::Module {
 public:
  Stage(int in, int out, int stride) {
    convs_ = register_module("convs", Chain(ConvNorm(in, out, stride), ConvNorm(out, out, 1)));
  }
  torch::Tensor forward(torch::Tensor x) { return convs_->forward(x); }

 private:
  Chain convs_{nullptr};
};

/// Transposed convolution 2×2 with stride 2. Its windows do not overlap, so it is one matrix product, four pixels from
/// each: half of the time of LibTorch's, which also leaves channels_last.
class Doubling : public torch::nn::ConvTranspose2dImpl {
 public:
  Doubling(int in, int out) : ConvTranspose2dImpl(torch::nn::ConvTranspose2dOptions(in, out, 2).stride(2)) {}
  torch::Tensor forward(const torch::Tensor& x) {
    const auto n = x.size(0), in = x.size(1), h = x.size(2), w = x.size(3), out = weight.size(1);
    const auto pixels = x.permute({0, 2, 3, 1}).reshape({-1, in});
    const auto four = torch::addmm(bias.repeat({4}), pixels, weight.permute({0, 2, 3, 1}).reshape({in, 4 * out}));
    return four.view({n, h, w, 2, 2, out}).permute({0, 1, 3, 2, 4, 5}).reshape({n, 2 * h, 2 * w, out}).permute({0, 3, 1, 2});
  }
};

/// The plain U-Net as nnU-Net plans it for 2-D images (Isensee 2021, doi:10.1038/s41592-020-01008-z): it halves the
/// image until fewer than 8 pixels a side are left, and doubles the width up to 16 times the first. The heads for deep
/// supervision are left out.
class UNet : public Model {
 public:
  explicit UNet(const ModelSpec& spec) {
    const int base = make_divisible(32 * spec.model.width);
    const auto width = [&](int stage) { return std::min(base << std::min(stage, 4), 16 * base); };
    for (int side = spec.task.image_size; side >= 8; side = (side + 1) / 2) ++halvings_;
    auto encoder = register_module("encoder", std::make_shared<torch::nn::Module>());
    auto decoder = register_module("decoder", std::make_shared<torch::nn::Module>());
    encoder->register_module("stages", encoder_);
    decoder->register_module("stages", decoder_);
    decoder->register_module("transpconvs", transpconvs_);
    for (int s = 0; s <= halvings_; ++s)
      encoder_->push_back(Chain(Stage(s == 0 ? spec.task.channels : width(s - 1), width(s), s == 0 ? 1 : 2)));
    for (int s = halvings_ - 1; s >= 0; --s) {
      transpconvs_->push_back(Doubling(width(s + 1), width(s)));
      decoder_->push_back(Stage(2 * width(s), width(s), 1));
    }
    head_ = decoder->register_module("seg_layer", biased_conv(base, spec.task.classes, 1));
  }

  torch::Tensor forward(torch::Tensor images) override {
    auto x = pad_to_multiple(images, 1 << halvings_);
    std::vector<torch::Tensor> skips;
    for (std::size_t s = 0; s < encoder_->size(); ++s) skips.push_back(x = tap(encoder_->at<ChainImpl>(s).forward(x)));
    for (std::size_t s = 0; s < decoder_->size(); ++s) {
      skips.pop_back();
      x = torch::cat({transpconvs_->at<Doubling>(s).forward(x), skips.back()}, 1);
      x = tap(decoder_->at<Stage>(s).forward(x));
    }
    return crop_to(head_(x), images.size(2), images.size(3));
  }

  void initialise(RandomStream& random) override { draw_grouped_and_head(*this, head_, random); }

 private:
  int halvings_ = 0;
  torch::nn::ModuleList encoder_, decoder_, transpconvs_;  // the decoder's from the coarsest on
  Conv2d head_{nullptr};
};

Result<std::shared_ptr<Model>> build_unet(const ModelSpec& spec) {
  if (spec.model.stem != "standard")
    return fail(Code::kInvalid, "unet takes its depth from the image size and has stem: standard only, not {}", spec.model.stem);
  if (!spec.model.variant.empty())
    return fail(Code::kInvalid, "unet has no variants, and '{}' is none; set width", spec.model.variant);
  return std::make_shared<UNet>(spec);
}

// The published 33,472,396 and 20,619,658 hold for 3 channels and 2 classes, and include the heads for deep supervision
// on all stages of the decoder but the last: 1×1 with bias from 64, 128, 256, 512, 512 (at 128 px: 64, 128, 256, 512)
// channels to 2 classes, (1472 + 5)·2 = 2,954 (at 128 px: (960 + 4)·2 = 1,928) parameters that inference does not use.
const RegisterModel kUNet{"unet",
                          {.paradigm = "CNN",
                           .task = "segmentation",
                           .paper = "Isensee 2021, doi:10.1038/s41592-020-01008-z",
                           .build = build_unet,
                           .sizes = {{"unet", 0.25, "standard"}, {"unet", 1, "standard"}},
                           .published = {{{{"unet", 1, "standard"}, {2, 3, 256}}, 33472396 - 2954, 14799601664},
                                         {{{"unet", 1, "standard"}, {2, 3, 128}}, 20619658 - 1928, 3563585536}}}};

}  // namespace
}  // namespace preceptor::models
