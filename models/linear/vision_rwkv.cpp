#include <cmath>

#include "models/kernels/kernels.h"
#include "models/linear/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

constexpr int kDepth = 12, kWidth = 192;

/// Each quarter of the channels moves by one token: right, left, down, up. Zeros come in.
torch::Tensor shift(const torch::Tensor& x) {
  const auto quarter = x.chunk(4, 3);
  return torch::cat({torch::constant_pad_nd(quarter[0], {0, 0, 1, -1}), torch::constant_pad_nd(quarter[1], {0, 0, -1, 1}),
                     torch::constant_pad_nd(quarter[2], {0, 0, 0, 0, 1, -1}),
                     torch::constant_pad_nd(quarter[3], {0, 0, 0, 0, -1, 1})}, 3);
}

/// Where a layer stands, for its first values.
struct Depth {
  explicit Depth(int layer) : from_start(double(layer) / (kDepth - 1)), to_end(1 - double(layer) / kDepth) {}
  double from_start;  ///< 0 … 1
  double to_end;      ///< 1 … almost 0
};

/// Shares of a token, as against its neighbour's, that rise from the first channel to the last.
void set_mix(const torch::Tensor& mix, double exponent, double more = 0) {
  set_values(mix, [&](auto i) { return std::pow(double(i) / kWidth, exponent) + more; });
}

/// Attention over all tokens, by their distance.
class SpatialMix : public torch::nn::Module {
 public:
  explicit SpatialMix(int layer) : depth_(layer) {
    decay_ = register_parameter("spatial_decay", torch::zeros({kWidth}));
    first_ = register_parameter("spatial_first", torch::zeros({kWidth}));
    mix_k_ = register_parameter("spatial_mix_k", torch::zeros({1, 1, kWidth}));
    mix_v_ = register_parameter("spatial_mix_v", torch::zeros({1, 1, kWidth}));
    mix_r_ = register_parameter("spatial_mix_r", torch::zeros({1, 1, kWidth}));
    key_ = register_module("key", linear(kWidth, kWidth, false));
    value_ = register_module("value", linear(kWidth, kWidth, false));
    receptance_ = register_module("receptance", linear(kWidth, kWidth, false));
    output_ = register_module("output", linear(kWidth, kWidth, false));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto shifted = shift(x);
    const auto k = key_(shifted.lerp(x, mix_k_)), v = value_(shifted.lerp(x, mix_v_));
    const auto r = receptance_(shifted.lerp(x, mix_r_)).sigmoid();
    return output_(r * kernels::bi_wkv(decay_, first_, k.flatten(1, 2), v.flatten(1, 2)).view(r.sizes()));
  }
  void initialise() {
    set_values(decay_, [&](auto i) { return -5 + 8 * std::pow(double(i) / (kWidth - 1), 0.7 + 1.3 * depth_.from_start); });
    set_values(first_, [](auto i) { return std::log(0.3) + 0.5 * double((i + 1) % 3 - 1); });
    set_mix(mix_k_, depth_.to_end);
    set_mix(mix_v_, depth_.to_end, 0.3 * depth_.from_start);
    set_mix(mix_r_, 0.5 * depth_.to_end);
  }

 private:
  Depth depth_;
  torch::Tensor decay_, first_, mix_k_, mix_v_, mix_r_;
  Linear key_{nullptr}, value_{nullptr}, receptance_{nullptr}, output_{nullptr};
};

/// A gated perceptron with squared ReLU, token by token.
class ChannelMix : public torch::nn::Module {
 public:
  explicit ChannelMix(int layer) : depth_(layer) {
    mix_k_ = register_parameter("spatial_mix_k", torch::zeros({1, 1, kWidth}));
    mix_r_ = register_parameter("spatial_mix_r", torch::zeros({1, 1, kWidth}));
    key_ = register_module("key", linear(kWidth, 4 * kWidth, false));
    receptance_ = register_module("receptance", linear(kWidth, kWidth, false));
    value_ = register_module("value", linear(4 * kWidth, kWidth, false));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto shifted = shift(x);
    const auto k = key_(shifted.lerp(x, mix_k_)).relu_().square();
    return receptance_(shifted.lerp(x, mix_r_)).sigmoid() * value_(k);
  }
  void initialise() {
    set_mix(mix_k_, depth_.to_end);
    set_mix(mix_r_, depth_.to_end);
  }

 private:
  Depth depth_;
  torch::Tensor mix_k_, mix_r_;
  Linear key_{nullptr}, receptance_{nullptr}, value_{nullptr};
};

class Block : public torch::nn::Module {
 public:
  explicit Block(int layer) {
    if (layer == 0) ln0_ = register_module("ln0", layer_norm(kWidth));
    ln1_ = register_module("ln1", layer_norm(kWidth));
    ln2_ = register_module("ln2", layer_norm(kWidth));
    att_ = register_module("att", std::make_shared<SpatialMix>(layer));
    ffn_ = register_module("ffn", std::make_shared<ChannelMix>(layer));
  }
  torch::Tensor forward(torch::Tensor x) {
    if (ln0_) x = ln0_(x);
    x = x + att_->forward(ln1_(x));
    return x + ffn_->forward(ln2_(x));
  }

 private:
  torch::nn::LayerNorm ln0_{nullptr}, ln1_{nullptr}, ln2_{nullptr};
  std::shared_ptr<SpatialMix> att_;
  std::shared_ptr<ChannelMix> ffn_;
};

class PatchEmbed : public torch::nn::Module {
 public:
  PatchEmbed(int in, int patch) { projection_ = register_module("projection", patch_conv(in, kWidth, patch)); }
  torch::Tensor forward(const torch::Tensor& images) { return to_tokens(projection_(images)); }
  void initialise(RandomStream& random) {
    const auto& weight = projection_->weight;
    draw_uniform(weight, 1 / std::sqrt(double(weight.numel() / weight.size(0))), random);
  }

 private:
  Conv2d projection_{nullptr};
};

/// Vision-RWKV-T (Duan 2024, arXiv:2403.02308): a plain stack of blocks over the patches of an image, with attention
/// that is linear in their number.
class VisionRwkv : public Model {
 public:
  VisionRwkv(const ModelSpec& spec, int patch) {
    const auto side = spec.task.image_size / patch;
    pos_embed_ = register_parameter("pos_embed", torch::zeros({1, side * side, kWidth}));
    patch_embed_ = register_module("patch_embed", std::make_shared<PatchEmbed>(spec.task.channels, patch));
    layers_ = register_module("layers", Chain());
    for (int i = 0; i < kDepth; ++i) layers_->push_back(Block(i));
    ln1_ = register_module("ln1", layer_norm(kWidth));
    head_ = register_module("head", linear(kWidth, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor images) override {
    const auto x = patch_embed_->forward(images);
    const auto tap_patches = [](const torch::Tensor& y) { return tap_tokens(y); };
    const auto placed = x + pos_embed_.view({1, x.size(1), x.size(2), x.size(3)});
    return head_(tap(ln1_(tap_children(*layers_, placed, {2, 5, 8, 11}, tap_patches)).mean({1, 2})));
  }

  void initialise(RandomStream& random) override {
    patch_embed_->initialise(random);
    pos_embed_.zero_();
    draw_weights<Linear>(*this, random);
    for (const auto& module : modules(/*include_self=*/false)) {
      if (auto* att = module->as<SpatialMix>()) att->initialise();
      if (auto* ffn = module->as<ChannelMix>()) ffn->initialise();
    }
  }

 private:
  torch::Tensor pos_embed_;
  std::shared_ptr<PatchEmbed> patch_embed_;
  Chain layers_{nullptr};
  torch::nn::LayerNorm ln1_{nullptr};
  Linear head_{nullptr};
};

Result<std::shared_ptr<Model>> build_vision_rwkv(const ModelSpec& spec) {
  if (spec.model.variant != "" && spec.model.variant != "tiny")
    return fail(Code::kInvalid, "vision_rwkv has variant tiny only, not '{}'", spec.model.variant);
  if (spec.model.width != 1) return fail(Code::kInvalid, "vision_rwkv has width 1 only, not {}", spec.model.width);
  const int patch = spec.model.stem == "standard" ? 16 : spec.model.stem == "half" ? 8 : 4;
  if (spec.task.image_size % patch != 0)
    return fail(Code::kInvalid, "vision_rwkv: stem {} cuts patches of {} px, which do not divide an image of {} px",
                spec.model.stem, patch, spec.task.image_size);
  return std::make_shared<VisionRwkv>(spec, patch);
}

const RegisterModel kVisionRwkv{
    "vision_rwkv",
    {.paradigm = "linear",
     .task = "classification",
     .paper = "Duan 2024, arXiv:2403.02308",
     .build = build_vision_rwkv,
     .sizes = {{"vision_rwkv", 1, "small", "tiny"}},
     .published = {{{{"vision_rwkv", 1, "standard", "tiny"}, {1000, 3, 224}}, 6155176, 1156247040},
                   {{{"vision_rwkv", 1, "standard", "tiny"}, {9, 3, 224}}, 5963913}}}};

}  // namespace
}  // namespace preceptor::models
