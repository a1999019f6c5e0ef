#include <cmath>

#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"
#include "models/transformer/first_values.h"

namespace preceptor::models {
namespace {

constexpr int kHeadDim = 16;
/// Keeps an empty attention's quotient and its gradient finite; timm's value (the paper's code has 1e-15, with which a
/// nearly empty one sends back gradients of any size).
constexpr double kEpsilon = 1e-5;

torch::nn::Functional hard_swish() { return torch::nn::Functional(torch::hardswish); }

/// Convolution ("conv"), batch normalisation ("norm") and h-swish.
Chain layer(int in, int out, int kernel, int stride = 1, int groups = 1, bool active = true) {
  Chain layers;
  layers->push_back("conv", conv(in, out, kernel, stride, groups));
  layers->push_back("norm", norm(out));
  if (active) layers->push_back("act", hard_swish());
  return layers;
}

/// With a bias in the normalisation's place, as within the attention's stages.
Chain bare_layer(int in, int out, int kernel, int stride = 1, int groups = 1) {
  Chain layers;
  torch::nn::Conv2dOptions options(in, out, kernel);
  layers->push_back("conv", Conv2d(options.stride(stride).padding(kernel / 2).groups(groups)));
  layers->push_back("act", hard_swish());
  return layers;
}

Chain separable_conv(int channels) {
  Chain layers;
  layers->push_back("depth_conv", layer(channels, channels, 3, 1, channels));
  layers->push_back("point_conv", layer(channels, channels, 1, 1, 1, /*active=*/false));
  return layers;
}

/// Inverted residual's body: 1×1 to four times the channels, depthwise 3×3, 1×1 back.
Chain mb_conv(int in, int out, int stride, bool normalised) {
  const int hidden = 4 * in;
  const auto inner = normalised ? [](int i, int o, int k, int s, int g) { return layer(i, o, k, s, g); }
                                : [](int i, int o, int k, int s, int g) { return bare_layer(i, o, k, s, g); };
  Chain layers;
  layers->push_back("inverted_conv", inner(in, hidden, 1, 1, 1));
  layers->push_back("depth_conv", inner(hidden, hidden, 3, stride, hidden));
  layers->push_back("point_conv", layer(hidden, out, 1, 1, 1, /*active=*/false));
  return layers;
}

/// Multi-scale linear attention. Queries, keys and values at each pixel and again of their 5×5 surroundings; in each
/// head, with a 1 appended to every v: y = relu(q) · Σ relu(k)ᵀ v, divided by its last column. Linear in the pixels.
class LiteMla : public torch::nn::Module {
 public:
  explicit LiteMla(int channels) {
    const int qkv = 3 * channels;
    qkv_ = register_module("qkv", Chain());
    qkv_->push_back("conv", conv(channels, qkv, 1));
    by_head_ = conv(qkv, qkv, 1, 1, qkv / kHeadDim);
    aggreg_ = register_module("aggreg", Chain(Chain(conv(qkv, qkv, 5, 1, qkv), by_head_)));
    proj_ = register_module("proj", layer(2 * channels, channels, 1, 1, 1, /*active=*/false));
  }
  torch::Tensor forward(torch::Tensor x) {
    const auto b = x.size(0), h = x.size(2), w = x.size(3);
    const auto qkv = qkv_->forward(x);
    by_head_->options.groups(qkv.size(1) / kHeadDim);  // pruning takes heads, of which the weight's shape says nothing
    // [B, heads of both scales, pixels, q|k|v]: a view of channels_last. Sums over all pixels want float32.
    const auto pixels = torch::cat({qkv, aggreg_->forward(qkv)}, 1).permute({0, 2, 3, 1}).to(torch::kFloat32);
    const auto heads = pixels.reshape({b, h * w, pixels.size(3) / (3 * kHeadDim), 3 * kHeadDim}).transpose(1, 2).chunk(3, -1);
    const auto q = heads[0].relu(), k = heads[1].relu(), v = torch::constant_pad_nd(heads[2], {0, 1}, 1);
    const auto sums = q.matmul(k.transpose(-2, -1).matmul(v));
    const auto y = sums.narrow(-1, 0, kHeadDim) / (sums.narrow(-1, kHeadDim, 1) + kEpsilon);
    return proj_->forward(y.transpose(1, 2).reshape({b, h, w, -1}).permute({0, 3, 1, 2}).to(x.scalar_type()));
  }

 private:
  Chain qkv_{nullptr}, aggreg_{nullptr}, proj_{nullptr};
  Conv2d by_head_{nullptr};
};

/// main(x), to which x is added.
template <class Main>
class Residual : public torch::nn::Module {
 public:
  explicit Residual(std::shared_ptr<Main> main, bool skip = true) : skip_(skip) {
    main_ = register_module("main", std::move(main));
  }
  torch::Tensor forward(torch::Tensor x) { return skip_ ? main_->forward(x) + x : main_->forward(x); }

 private:
  std::shared_ptr<Main> main_;
  bool skip_;
};

std::shared_ptr<Residual<ChainImpl>> residual(const Chain& main, bool skip = true) {
  return std::make_shared<Residual<ChainImpl>>(main.ptr(), skip);
}

Chain attention_block(int channels) {
  Chain block;
  block->push_back("context_module", std::make_shared<Residual<LiteMla>>(std::make_shared<LiteMla>(channels)));
  block->push_back("local_module", residual(mb_conv(channels, channels, 1, /*normalised=*/false)));
  return block;
}

/// EfficientViT-B0 (Cai 2022, arXiv:2205.14756). The half stem's first convolution has stride 1; the small stem's first
/// stage as well.
class EfficientVitB0 : public Model {
 public:
  explicit EfficientVitB0(const ModelSpec& spec) {
    const auto& stem = spec.model.stem;
    stem_ = register_module("stem", Chain());
    stem_->push_back("in_conv", layer(spec.task.channels, 8, 3, stem == "standard" ? 2 : 1));
    stem_->push_back("res0", residual(separable_conv(8)));
    stages_ = register_module("stages", Chain());
    int in = 8;
    for (const int out : {16, 32, 64, 128}) {
      const bool attentive = out >= 64;
      Chain blocks, stage;
      blocks->push_back(residual(mb_conv(in, out, stem == "small" && out == 16 ? 1 : 2, !attentive), /*skip=*/false));
      if (!attentive) blocks->push_back(residual(mb_conv(out, out, 1, /*normalised=*/true)));
      if (attentive)
        for (int i = 0; i < 2; ++i) blocks->push_back(attention_block(out));
      stage->push_back("blocks", blocks);
      stages_->push_back(stage);
      in = out;
    }
    head_ = register_module("head", Chain());
    head_->push_back("in_conv", layer(in, 1024, 1));
    head_->push_back("global_pool", torch::nn::Functional(global_pool));
    // timm's index: classifier.3 is the dropout that is left out here.
    head_->push_back("classifier", Chain(Linear(torch::nn::LinearOptions(1024, 1280).bias(false)),
                                         torch::nn::LayerNorm(torch::nn::LayerNormOptions({1280})), hard_swish(),
                                         torch::nn::Identity(), Linear(1280, spec.task.classes)));
  }
  torch::Tensor forward(torch::Tensor x) override { return tap_children(*head_, tap_children(*stages_, stem_->forward(x)), {1}); }

  void initialise(RandomStream& random) override {
    transformer::draw_linear_layers(*this, random);
    // The common rule counts the outputs of all groups. Where no normalisation follows, a depthwise layer would all but
    // silence its channels.
    for (const auto& module : modules(/*include_self=*/false))
      if (auto* layer = module->as<Conv2d>()) layer->weight.mul_(std::sqrt(double(layer->options.groups())));
  }

 private:
  Chain stem_{nullptr}, stages_{nullptr}, head_{nullptr};
};

Result<std::shared_ptr<Model>> build_efficientvit(const ModelSpec& spec) {
  if (spec.model.width != 1) return fail(Code::kInvalid, "efficientvit_b0 has width 1, not {}", spec.model.width);
  if (!spec.model.variant.empty())
    return fail(Code::kInvalid, "efficientvit_b0 has no variants, and '{}' is none", spec.model.variant);
  return std::make_shared<EfficientVitB0>(spec);
}

const RegisterModel kEfficientVitB0{
    "efficientvit_b0",
    {.paradigm = "Transformer",
     .task = "classification",
     .paper = "Cai 2022, arXiv:2205.14756",
     .build = build_efficientvit,
     .sizes = {{"efficientvit_b0"}},
     .published = {{{{"efficientvit_b0", 1, "standard"}, {1000, 3, 224}}, 3410008, 100233216},
                   {{{"efficientvit_b0", 1, "standard"}, {9, 3, 64}}, 2140537, 9293056},
                   {{{"efficientvit_b0", 1, "standard"}, {9, 3, 128}}, 2140537, 33205504},
                   {{{"efficientvit_b0", 1, "standard"}, {9, 3, 224}}, 2140537, 98964736}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
