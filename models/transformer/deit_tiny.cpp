#include <cmath>

#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"
#include "models/transformer/first_values.h"

namespace preceptor::models {
namespace {

constexpr int kDim = 192, kHeadDim = 64, kDepth = 12;

torch::nn::LayerNorm layer_norm() { return torch::nn::LayerNorm(torch::nn::LayerNormOptions({kDim}).eps(1e-6)); }

/// softmax(q kᵀ / √d) v in each head; the heads' values side by side, then a linear layer.
class Attention : public torch::nn::Module {
 public:
  Attention() {
    qkv_ = register_module("qkv", Linear(kDim, 3 * kDim));
    proj_ = register_module("proj", Linear(kDim, kDim));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto b = x.size(0), n = x.size(1);
    const auto all = qkv_(x);
    const auto qkv = all.view({b, n, 3, all.size(2) / (3 * kHeadDim), kHeadDim}).permute({2, 0, 3, 1, 4});  // each [B, heads, N, d]
    const auto scores = (qkv[0] * (1 / std::sqrt(double(kHeadDim)))).matmul(qkv[1].transpose(-2, -1));
    return proj_(scores.softmax(-1).matmul(qkv[2]).transpose(1, 2).flatten(2));
  }

 private:
  Linear qkv_{nullptr}, proj_{nullptr};
};

class Mlp : public torch::nn::Module {
 public:
  Mlp() {
    fc1_ = register_module("fc1", Linear(kDim, 4 * kDim));
    fc2_ = register_module("fc2", Linear(4 * kDim, kDim));
  }
  torch::Tensor forward(const torch::Tensor& x) { return fc2_(torch::gelu(fc1_(x))); }

 private:
  Linear fc1_{nullptr}, fc2_{nullptr};
};

class Block : public torch::nn::Module {
 public:
  Block() {
    norm1_ = register_module("norm1", layer_norm());
    attn_ = register_module("attn", std::make_shared<Attention>());
    norm2_ = register_module("norm2", layer_norm());
    mlp_ = register_module("mlp", std::make_shared<Mlp>());
  }
  torch::Tensor forward(torch::Tensor x) {
    x = x + attn_->forward(norm1_(x));
    return x + mlp_->forward(norm2_(x));
  }

 private:
  torch::nn::LayerNorm norm1_{nullptr}, norm2_{nullptr};
  std::shared_ptr<Attention> attn_;
  std::shared_ptr<Mlp> mlp_;
};

/// DeiT-Tiny (Touvron 2020, arXiv:2012.12877): a ViT of 12 blocks; the distilled one has a second token whose head
/// listens to a teacher. A stem that leaves out a /2 or a /4 cuts patches of 8 or 4 instead of 16 pixels.
class DeitTiny : public Model {
 public:
  DeitTiny(const ModelSpec& spec, int patch, bool distilled) {
    const int side = spec.task.image_size / patch, tokens = distilled ? 2 : 1;
    cls_token_ = register_parameter("cls_token", torch::zeros({1, 1, kDim}));
    if (distilled) dist_token_ = register_parameter("dist_token", torch::zeros({1, 1, kDim}));
    pos_embed_ = register_parameter("pos_embed", torch::zeros({1, side * side + tokens, kDim}));
    torch::nn::Conv2dOptions cut(spec.task.channels, kDim, patch);
    patch_embed_ = register_module("patch_embed", Chain());
    patch_embed_->push_back("proj", Conv2d(cut.stride(patch)));
    blocks_ = register_module("blocks", Chain());
    for (int i = 0; i < kDepth; ++i) blocks_->push_back(Block());
    norm_ = register_module("norm", layer_norm());
    head_ = register_module("head", Linear(kDim, spec.task.classes));
    if (distilled) head_dist_ = register_module("head_dist", Linear(kDim, spec.task.classes));
  }

  torch::Tensor forward(torch::Tensor x) override {
    const auto patches = patch_embed_->forward(x).flatten(2).transpose(1, 2);  // [B, N, dim]
    std::vector<torch::Tensor> tokens{cls_token_.expand({x.size(0), -1, -1})};
    if (dist_token_.defined()) tokens.push_back(dist_token_.expand({x.size(0), -1, -1}));
    tokens.push_back(patches);
    const auto tap_patches = [&](const torch::Tensor& y) { return tap_tokens(y, y.size(1) - patches.size(1)); };
    x = norm_(tap_children(*blocks_, torch::cat(tokens, 1) + pos_embed_, {2, 5, 8, 11}, tap_patches));
    const auto label = head_(tap(x.select(1, 0)));
    if (head_dist_.is_empty()) return label;
    const auto teacher = head_dist_(x.select(1, 1));
    return is_training() ? torch::stack({label, teacher}, 1) : (label + teacher) / 2;
  }

  void initialise(RandomStream& random) override {
    transformer::draw_linear_layers(*this, random);
    for (auto* token : {&cls_token_, &dist_token_, &pos_embed_})
      if (token->defined()) transformer::draw(*token, transformer::kDeviation, random);
    // A linear layer over a patch's pixels, of which there are 16 to 768: by their number (LeCun's rule).
    auto& pixels = patch_embed_->at<Conv2dImpl>(0).weight;
    transformer::draw(pixels, 1 / std::sqrt(double(pixels.numel() / kDim)), random);
  }

 private:
  torch::Tensor cls_token_, dist_token_, pos_embed_;
  Chain patch_embed_{nullptr}, blocks_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
  Linear head_{nullptr}, head_dist_{nullptr};
};

Result<std::shared_ptr<Model>> build_deit(const ModelSpec& spec) {
  const auto& [name, width, stem, variant, normalisation] = spec.model;
  if (width != 1) return fail(Code::kInvalid, "deit_tiny has width 1, not {}", width);
  if (variant != "" && variant != "distilled" && variant != "plain")
    return fail(Code::kInvalid, "deit_tiny has variants distilled and plain, not '{}'", variant);
  const int patch = stem == "standard" ? 16 : stem == "half" ? 8 : 4;
  if (spec.task.image_size % patch != 0)
    return fail(Code::kInvalid, "deit_tiny with stem: {} cuts patches of {} px, into which {} px a side cannot be divided", stem,
                patch, spec.task.image_size);
  return std::make_shared<DeitTiny>(spec, patch, variant != "plain");
}

const RegisterModel kDeitTiny{
    "deit_tiny",
    {.paradigm = "Transformer",
     .task = "classification",
     .paper = "Touvron 2020, arXiv:2012.12877",
     .build = build_deit,
     .sizes = {{"deit_tiny", 1, "small", "plain"}, {"deit_tiny", 1, "small", "distilled"}},
     .published = {{{{"deit_tiny", 1, "standard", "plain"}, {1000, 3, 224}}, 5717416, 1253683200},
                   {{{"deit_tiny", 1, "standard", "plain"}, {9, 3, 224}}, 5526153, 1253492928},
                   {{{"deit_tiny", 1, "standard", "distilled"}, {9, 3, 224}}, 5528274}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
