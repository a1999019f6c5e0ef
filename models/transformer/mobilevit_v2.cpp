#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"
#include "models/transformer/first_values.h"

namespace preceptor::models {
namespace {

Conv2d pointwise(int in, int out) { return Conv2d(torch::nn::Conv2dOptions(in, out, 1)); }
/// Over all channels and pixels of an image.
torch::nn::GroupNorm image_norm(int channels) { return torch::nn::GroupNorm(torch::nn::GroupNormOptions(1, channels)); }

Chain layer(int in, int out, int kernel, int stride = 1, int groups = 1, bool active = true) {
  Chain layers;
  layers->push_back("conv", conv(in, out, kernel, stride, groups));
  layers->push_back("bn", norm(out));
  if (active) layers->push_back("act", torch::nn::SiLU());
  return layers;
}

/// 1×1 to twice the channels, depthwise 3×3, 1×1 without activation; residual where shapes allow.
class InvertedResidual : public torch::nn::Module {
 public:
  InvertedResidual(int in, int out, int stride) : residual_(stride == 1 && in == out) {
    const int hidden = 2 * in;
    layers_->push_back(register_module("conv1_1x1", layer(in, hidden, 1)));
    layers_->push_back(register_module("conv2_kxk", layer(hidden, hidden, 3, stride, hidden)));
    layers_->push_back(register_module("conv3_1x1", layer(hidden, out, 1, 1, 1, /*active=*/false)));
  }
  torch::Tensor forward(torch::Tensor x) { return residual_ ? x + layers_->forward(x) : layers_->forward(x); }

 private:
  bool residual_;
  Chain layers_;
};

/// Separable self-attention: the pixels at one place of all 2×2 patches are the tokens, and the four places do not see
/// each other. One score a token, softmax over them; context = Σ score · key; each answers relu(value) · context.
/// The rest of a block works pixel by pixel, so the map need not be unfolded into patches: here they are views.
class SeparableAttention : public torch::nn::Module {
 public:
  explicit SeparableAttention(int dim) {
    qkv_proj_ = register_module("qkv_proj", pointwise(dim, 1 + 2 * dim));
    out_proj_ = register_module("out_proj", pointwise(dim, dim));
  }
  torch::Tensor forward(torch::Tensor x) {
    const auto b = x.size(0), rows = x.size(2) / 2, columns = x.size(3) / 2;
    const auto patches = [&](const torch::Tensor& map) { return map.view({b, map.size(1), rows, 2, columns, 2}); };
    const auto all = qkv_proj_(x);
    const auto dim = all.size(1) / 2;
    const auto qkv = all.split_with_sizes({1, dim, dim}, 1);
    const auto scores = patches(qkv[0]).transpose(3, 4).reshape({b, 1, rows * columns, 2, 2}).softmax(2);
    const auto at_patches = scores.view({b, 1, rows, columns, 2, 2}).transpose(3, 4);
    const auto context = (patches(qkv[1]) * at_patches).sum({2, 4}, /*keepdim=*/true);
    return out_proj_((patches(qkv[2]).relu() * context).reshape({b, dim, 2 * rows, 2 * columns}));
  }

 private:
  Conv2d qkv_proj_{nullptr}, out_proj_{nullptr};
};

class TransformerLayer : public torch::nn::Module {
 public:
  explicit TransformerLayer(int dim) {
    norm1_ = register_module("norm1", image_norm(dim));
    attn_ = register_module("attn", std::make_shared<SeparableAttention>(dim));
    norm2_ = register_module("norm2", image_norm(dim));
    mlp_ = register_module("mlp", Chain());
    mlp_->push_back("fc1", pointwise(dim, 2 * dim));
    mlp_->push_back("act", torch::nn::SiLU());
    mlp_->push_back("fc2", pointwise(2 * dim, dim));
  }
  torch::Tensor forward(torch::Tensor x) {
    x = x + attn_->forward(norm1_(x));
    return x + mlp_->forward(norm2_(x));
  }

 private:
  torch::nn::GroupNorm norm1_{nullptr}, norm2_{nullptr};
  std::shared_ptr<SeparableAttention> attn_;
  Chain mlp_{nullptr};
};

/// Depthwise 3×3, 1×1 to half the channels, Transformer layers, 1×1 back. A map of odd size has no whole patches; as in
/// the published code it is resized to the next even size, which it keeps.
class MobileVitBlock : public torch::nn::Module {
 public:
  MobileVitBlock(int channels, int depth) {
    const int dim = make_divisible(0.5 * channels);
    layers_->push_back(register_module("conv_kxk", layer(channels, channels, 3, 1, channels)));
    layers_->push_back(register_module("conv_1x1", conv(channels, dim, 1)));
    Chain transformer;
    for (int i = 0; i < depth; ++i) transformer->push_back(TransformerLayer(dim));
    layers_->push_back(register_module("transformer", transformer));
    layers_->push_back(register_module("norm", image_norm(dim)));
    layers_->push_back(register_module("conv_proj", layer(dim, channels, 1, 1, 1, /*active=*/false)));
  }
  torch::Tensor forward(torch::Tensor x) {
    const auto h = x.size(2), w = x.size(3);
    if (h % 2 || w % 2) x = torch::upsample_bilinear2d(x, {h + h % 2, w + w % 2}, /*align_corners=*/true);
    return layers_->forward(x);
  }

 private:
  Chain layers_;
};

/// MobileViTv2 (Mehta 2022, arXiv:2206.02680). The half stem's first convolution has stride 1; the small stem's first
/// stage that would halve the map does not, either.
class MobileVitV2 : public Model {
 public:
  explicit MobileVitV2(const ModelSpec& spec) {
    struct Stage {
      int channels, residuals, stride, depth;
    };
    const auto& [name, width, stem, variant, normalisation] = spec.model;
    const Stage stages[] = {{64, 1, 1, 0}, {128, 2, stem == "small" ? 1 : 2, 0}, {256, 1, 2, 2}, {384, 1, 2, 4}, {512, 1, 2, 3}};
    int in = int(32 * width);
    stem_ = register_module("stem", layer(spec.task.channels, in, 3, stem == "standard" ? 2 : 1));
    stages_ = register_module("stages", Chain());
    for (const auto& [channels, residuals, stride, depth] : stages) {
      const int out = int(channels * width);
      Chain stage;
      for (int i = 0; i < residuals; ++i) stage->push_back(InvertedResidual(i == 0 ? in : out, out, i == 0 ? stride : 1));
      if (depth > 0) stage->push_back(MobileVitBlock(out, depth));
      stages_->push_back(stage);
      in = out;
    }
    head_ = register_module("head", Chain());
    head_->push_back("global_pool", torch::nn::Functional(global_pool));
    head_->push_back("fc", Linear(in, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override { return tap_children(*head_, tap_children(*stages_, stem_->forward(x)), {0}); }

  void initialise(RandomStream& random) override { transformer::draw_linear_layers(*this, random); }

 private:
  Chain stem_{nullptr}, stages_{nullptr}, head_{nullptr};
};

Result<std::shared_ptr<Model>> build_mobilevit(const ModelSpec& spec) {
  if (spec.model.width != 0.5 && spec.model.width != 1)
    return fail(Code::kInvalid, "mobilevit_v2 has widths 0.5 and 1, not {}", spec.model.width);
  if (!spec.model.variant.empty())
    return fail(Code::kInvalid, "mobilevit_v2 has no variants, and '{}' is none; set width", spec.model.variant);
  return std::make_shared<MobileVitV2>(spec);
}

const RegisterModel kMobileVitV2{
    "mobilevit_v2",
    {.paradigm = "Transformer",
     .task = "classification",
     .paper = "Mehta 2022, arXiv:2206.02680",
     .build = build_mobilevit,
     .sizes = {{"mobilevit_v2", 0.5}, {"mobilevit_v2", 1}},
     .published = {{{{"mobilevit_v2", 0.5, "standard"}, {1000, 3, 224}}, 1370593, 361949824},
                   {{{"mobilevit_v2", 0.5, "standard"}, {9, 3, 64}}, 1115906, 29023488},
                   {{{"mobilevit_v2", 0.5, "standard"}, {9, 3, 128}}, 1115906, 116087040},
                   {{{"mobilevit_v2", 0.5, "standard"}, {9, 3, 224}}, 1115906, 361696128}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
