#include "models/gelu.h"
#include "models/kernels/kernels.h"
#include "models/linear/state_space.h"
#include "models/model.h"
#include "models/segmentation/layers.h"
#include "models/segmentation/padding.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

constexpr int kStates = 16, kTaps = 4, kChunks = 4;

/// A Mamba block (Gu 2023, arXiv:2312.00752) over sequences [B, L, width].
class Mamba : public torch::nn::Module {
 public:
  explicit Mamba(int width) {
    const int inner = 2 * width, rank = (width + 15) / 16;
    a_log_ = register_parameter("A_log", torch::zeros({inner, kStates}));
    d_ = register_parameter("D", torch::zeros({inner}));
    in_proj_ = register_module("in_proj", linear(width, 2 * inner, false));
    conv1d_ = register_module("conv1d", torch::nn::Conv1d(torch::nn::Conv1dOptions(inner, inner, kTaps).groups(inner)));
    x_proj_ = register_module("x_proj", linear(inner, rank + 2 * kStates, false));
    dt_proj_ = register_module("dt_proj", torch::nn::Linear(rank, inner));
    out_proj_ = register_module("out_proj", linear(inner, width, false));
  }

  torch::Tensor forward(const torch::Tensor& x) {
    const auto batch = x.size(0), length = x.size(1), inner = dt_proj_->weight.size(0), rank = dt_proj_->weight.size(1);
    const auto halves = in_proj_(x).chunk(2, 2);
    // As an image of one row, so that channels stay innermost. Of the zeros around it only those in front matter: a
    // token sees itself and the three before it.
    const auto row = to_images(halves[0].unsqueeze(1)).contiguous(at::MemoryFormat::ChannelsLast);
    const auto weight = conv1d_->weight.unsqueeze(2);
    const auto seen = torch::conv2d(row, weight, conv1d_->bias, 1, at::IntArrayRef{0, kTaps - 1}, 1, inner);
    const auto u = torch::silu(to_tokens(seen).squeeze(1).narrow(1, 0, length)).contiguous();
    const auto parts = x_proj_(u).split_with_sizes({rank, kStates, kStates}, 2);
    const auto delta = torch::matmul(parts[0], dt_proj_->weight.t());
    const auto y = kernels::selective_scan(u, delta.unsqueeze(0), -a_log_.exp().unsqueeze(0), parts[1].unsqueeze(0),
                                           parts[2].unsqueeze(0), d_.unsqueeze(0), dt_proj_->bias.unsqueeze(0),
                                           torch::arange(length, torch::kInt32).unsqueeze(0));
    return out_proj_(y.view({batch, length, inner}) * torch::silu(halves[1]));
  }

  void initialise(RandomStream& random) {
    draw_normal(conv1d_->weight, std::sqrt(2.0 / double(kTaps * d_.size(0))), random);
    start_state_space(a_log_, d_, dt_proj_->weight, dt_proj_->bias, random);
  }

 private:
  torch::Tensor a_log_, d_;
  Linear in_proj_{nullptr}, x_proj_{nullptr}, out_proj_{nullptr};
  torch::nn::Linear dt_proj_{nullptr};  // its weight is used by itself
  torch::nn::Conv1d conv1d_{nullptr};
};

/// Parallel vision Mamba: each quarter of the channels through the same Mamba block, plus itself; then all through one
/// linear layer. The quarters go as samples of a batch.
class PvmLayer : public torch::nn::Module {
 public:
  PvmLayer(int in, int out) {
    skip_scale_ = register_parameter("skip_scale", torch::ones({1}));
    norm_ = register_module("norm", layer_norm(in));
    mamba_ = register_module("mamba", std::make_shared<Mamba>(in / kChunks));
    proj_ = register_module("proj", linear(in, out));
  }
  torch::Tensor forward(torch::Tensor images) {
    const auto batch = images.size(0), width = images.size(1), h = images.size(2), w = images.size(3);
    const auto tokens = norm_(to_tokens(images).flatten(1, 2)).view({batch, h * w, kChunks, width / kChunks});
    const auto chunks = tokens.transpose(1, 2).flatten(0, 1);
    const auto mixed = (mamba_->forward(chunks) + skip_scale_ * chunks).view({batch, kChunks, h * w, width / kChunks});
    return to_images(proj_(norm_(mixed.transpose(1, 2).flatten(2))).view({batch, h, w, -1}));
  }
  void initialise(RandomStream& random) {
    mamba_->initialise(random);
    skip_scale_.fill_(1);
  }

 private:
  torch::Tensor skip_scale_;
  torch::nn::LayerNorm norm_{nullptr};
  std::shared_ptr<Mamba> mamba_;
  Linear proj_{nullptr};
};

constexpr std::array kWidths{8, 16, 24, 32, 48, 64};
using Skips = std::array<torch::Tensor, 5>;

/// A weight for each channel of each skip, from the means of them all.
class ChannelAttention : public torch::nn::Module {
 public:
  ChannelAttention() {
    get_all_att_ = register_module("get_all_att", torch::nn::Conv1d(torch::nn::Conv1dOptions(1, 1, 3).padding(1).bias(false)));
    for (std::size_t i = 0; i < att_.size(); ++i)
      att_[i] = register_module("att" + std::to_string(i + 1), linear(8 + 16 + 24 + 32 + 48, kWidths[i]));
  }
  Skips forward(const Skips& t) {
    std::vector<torch::Tensor> means;
    for (const auto& x : t) means.push_back(global_pool(x));
    const auto all = get_all_att_(torch::cat(means, 1).unsqueeze(1));
    Skips weights;
    for (std::size_t i = 0; i < t.size(); ++i) weights[i] = att_[i](all).sigmoid().transpose(1, 2).unsqueeze(-1);
    return weights;
  }
  void initialise(RandomStream& random) { draw_normal(get_all_att_->weight, std::sqrt(2.0 / 3), random); }

 private:
  torch::nn::Conv1d get_all_att_{nullptr};
  std::array<Linear, 5> att_{nullptr, nullptr, nullptr, nullptr, nullptr};
};

/// A weight for each pixel, from the mean and the maximum of its channels.
class SpatialAttention : public torch::nn::Module {
 public:
  SpatialAttention() {
    const auto options = torch::nn::Conv2dOptions(2, 1, 7).padding(9).dilation(3);
    shared_conv2d_ = register_module("shared_conv2d", Chain(Conv2d(options)));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    return shared_conv2d_->forward(torch::cat({x.mean(1, true), std::get<0>(x.max(1, true))}, 1)).sigmoid();
  }

 private:
  Chain shared_conv2d_{nullptr};
};

class Bridge : public torch::nn::Module {
 public:
  Bridge() {
    catt_ = register_module("catt", std::make_shared<ChannelAttention>());
    satt_ = register_module("satt", std::make_shared<SpatialAttention>());
  }
  Skips forward(Skips t) {
    auto lit = t;
    for (std::size_t i = 0; i < t.size(); ++i) {
      lit[i] = t[i] * satt_->forward(t[i]);
      t[i] = t[i] + lit[i];
    }
    const auto weights = catt_->forward(t);
    for (std::size_t i = 0; i < t.size(); ++i) t[i] = t[i] * weights[i] + lit[i];
    return t;
  }
  void initialise(RandomStream& random) { catt_->initialise(random); }

 private:
  std::shared_ptr<ChannelAttention> catt_;
  std::shared_ptr<SpatialAttention> satt_;
};

/// UltraLight VM-UNet (Wu 2024, arXiv:2403.20035): a U-Net with three stages of one convolution and three of Mamba, and
/// attention over its skips. A stem that leaves poolings out leaves out the upsamplings across from them.
class UltraLightVmUnet : public Model {
 public:
  explicit UltraLightVmUnet(const ModelSpec& spec) : left_out_(left_out(spec.model.stem)) {
    const auto group_norm = [&](const std::string& name, int width) {
      return register_module(name, torch::nn::GroupNorm(torch::nn::GroupNormOptions(4, width)));
    };
    const auto stage = [&](const std::string& name, int in, int out, bool convolution) {
      return register_module(name, convolution ? Chain(biased_conv(in, out, 3)) : Chain(PvmLayer(in, out)));
    };
    for (std::size_t i = 0; i < 6; ++i) {
      const int in = i == 0 ? spec.task.channels : kWidths[i - 1], out = kWidths[i];
      encoder_[i] = stage("encoder" + std::to_string(i + 1), in, out, i < 3);
    }
    scab_ = register_module("scab", std::make_shared<Bridge>());
    for (std::size_t i = 0; i < 5; ++i) {
      const int in = kWidths[5 - i], out = kWidths[4 - i];
      decoder_[i] = stage("decoder" + std::to_string(i + 1), in, out, i >= 3);
    }
    for (std::size_t i = 0; i < 5; ++i) ebn_[i] = group_norm("ebn" + std::to_string(i + 1), kWidths[i]);
    for (std::size_t i = 0; i < 5; ++i) dbn_[i] = group_norm("dbn" + std::to_string(i + 1), kWidths[4 - i]);
    final_ = register_module("final", biased_conv(kWidths[0], spec.task.classes, 1));
  }

  torch::Tensor forward(torch::Tensor images) override {
    auto x = pad_to_multiple(images, 32 >> left_out_);
    Skips skips;
    for (std::size_t i = 0; i < 5; ++i) {
      x = ebn_[i](encoder_[i]->forward(x));
      skips[i] = x = tap(image_gelu(int(i) >= left_out_ ? torch::max_pool2d(x, 2, 2) : x));
    }
    skips = scab_->forward(skips);
    x = tap(image_gelu(encoder_[5]->forward(x)));
    for (std::size_t i = 0; i < 5; ++i) {
      x = dbn_[i](decoder_[i]->forward(x));
      x = tap(image_gelu(i == 0 ? x : up(x, 5 - int(i))) + skips[4 - i]);
    }
    return crop_to(up(final_(x), 0), images.size(2), images.size(3));
  }

  void initialise(RandomStream& random) override {
    draw_weights<Linear>(*this, random);
    for (const auto& module : modules(/*include_self=*/false))
      if (auto* layer = module->as<PvmLayer>()) layer->initialise(random);
    scab_->initialise(random);
    draw_normal(final_->weight, 0.01, random);  // a linear classifier of pixels, not a layer to keep variance through
  }

 private:
  /// Undoes the pooling after that stage, if there was one.
  torch::Tensor up(const torch::Tensor& x, int stage) const {
    return stage < left_out_ ? x : torch::upsample_bilinear2d(x, {2 * x.size(2), 2 * x.size(3)}, /*align_corners=*/true);
  }

  int left_out_;
  std::array<Chain, 6> encoder_{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  std::array<Chain, 5> decoder_{nullptr, nullptr, nullptr, nullptr, nullptr};
  std::array<torch::nn::GroupNorm, 5> ebn_{nullptr, nullptr, nullptr, nullptr, nullptr};
  std::array<torch::nn::GroupNorm, 5> dbn_{nullptr, nullptr, nullptr, nullptr, nullptr};
  std::shared_ptr<Bridge> scab_;
  Conv2d final_{nullptr};
};

Result<std::shared_ptr<Model>> build_ultralight(const ModelSpec& spec) {
  if (spec.model.variant != "") return fail(Code::kInvalid, "ultralight_vm_unet has no variant '{}'", spec.model.variant);
  if (spec.model.width != 1) return fail(Code::kInvalid, "ultralight_vm_unet has width 1 only, not {}", spec.model.width);
  return std::make_shared<UltraLightVmUnet>(spec);
}

const RegisterModel kUltraLightVmUnet{"ultralight_vm_unet",
                                      {.paradigm = "linear",
                                       .task = "segmentation",
                                       .paper = "Wu 2024, arXiv:2403.20035",
                                       .build = build_ultralight,
                                       .sizes = {{"ultralight_vm_unet", 1, "standard"}},
                                       .published = {{{{"ultralight_vm_unet", 1, "standard"}, {1, 3, 256}}, 49457, 66001728}}}};

}  // namespace
}  // namespace preceptor::models
