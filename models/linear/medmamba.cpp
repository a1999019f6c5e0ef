#include "models/kernels/kernels.h"
#include "models/linear/state_space.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

constexpr int kStates = 16, kOrders = 4;

/// Orders to visit h × w tokens in: by rows, by columns, and both from the end. [4, h·w] int32.
torch::Tensor four_ways(std::int64_t h, std::int64_t w) {
  const auto rows = torch::arange(h * w, torch::kInt32), columns = rows.view({h, w}).t().flatten();
  return torch::stack({rows, columns, rows.flip(0), columns.flip(0)});
}

/// SS2D (Liu 2024, arXiv:2401.10166): a gated selective scan of the tokens of an image, in four orders.
class Ss2d : public torch::nn::Module {
 public:
  explicit Ss2d(int width) {
    const int inner = 2 * width, rank = (width + 15) / 16;
    x_proj_ = register_parameter("x_proj_weight", torch::zeros({kOrders, rank + 2 * kStates, inner}));
    dt_projs_ = register_parameter("dt_projs_weight", torch::zeros({kOrders, inner, rank}));
    dt_bias_ = register_parameter("dt_projs_bias", torch::zeros({kOrders, inner}));
    a_logs_ = register_parameter("A_logs", torch::zeros({kOrders * inner, kStates}));
    ds_ = register_parameter("Ds", torch::zeros({kOrders * inner}));
    in_proj_ = register_module("in_proj", linear(width, 2 * inner, false));
    conv2d_ = register_module("conv2d", token_conv(inner, inner, 3, 1, inner));
    out_norm_ = register_module("out_norm", layer_norm(inner));
    out_proj_ = register_module("out_proj", linear(inner, width, false));
  }

  torch::Tensor forward(const torch::Tensor& tokens) {
    const auto batch = tokens.size(0), h = tokens.size(1), w = tokens.size(2), length = h * w;
    const auto inner = dt_projs_.size(1), rank = dt_projs_.size(2);
    const auto halves = in_proj_(tokens).chunk(2, 3);
    const auto u = torch::silu(to_tokens(conv2d_(to_images(halves[0])))).flatten(1, 2);
    // One product for the four orders, token by token: a scan reads its rows in its order, so nothing is flipped.
    const auto rows = torch::mm(u.flatten(0, 1), x_proj_.flatten(0, 1).t()).view({batch * length, kOrders, -1}).transpose(0, 1);
    const auto parts = rows.split_with_sizes({rank, kStates, kStates}, 2);
    const auto by_sample = [&](const torch::Tensor& x) { return x.view({kOrders, batch, length, x.size(2)}); };
    // Of rank one there is nothing to sum: the product is elementwise, and no matrix product is counted for it.
    const auto step_weight = dt_projs_.transpose(1, 2);
    const auto steps = rank == 1 ? parts[0] * step_weight : torch::bmm(parts[0], step_weight);
    const auto y = kernels::selective_scan(u, by_sample(steps),
                                           -a_logs_.exp().view({kOrders, inner, kStates}), by_sample(parts[1]),
                                           by_sample(parts[2]), ds_.view({kOrders, inner}), dt_bias_, four_ways(h, w));
    return out_proj_(out_norm_(y.view({batch, h, w, inner})) * torch::silu(halves[1]));
  }

  void initialise(RandomStream& random) {
    draw_uniform(x_proj_, 1 / std::sqrt(double(x_proj_.size(2))), random);
    start_state_space(a_logs_, ds_, dt_projs_, dt_bias_, random);
  }

 private:
  torch::Tensor x_proj_, dt_projs_, dt_bias_, a_logs_, ds_;
  Linear in_proj_{nullptr}, out_proj_{nullptr};
  Conv2d conv2d_{nullptr};
  torch::nn::LayerNorm out_norm_{nullptr};
};

/// SS-Conv-SSM: half of the channels through convolutions, the other half through SS2D; shuffled together, and added.
class SsConvSsm : public torch::nn::Module {
 public:
  explicit SsConvSsm(int width) {
    const int half = width / 2;
    ln_1_ = register_module("ln_1", layer_norm(half));
    self_attention_ = register_module("self_attention", std::make_shared<Ss2d>(half));
    convs_ = register_module("conv33conv33conv11",
                             Chain(norm(half), token_conv(half, half, 3), norm(half), relu(), token_conv(half, half, 3),
                                   norm(half), relu(), token_conv(half, half, 1), relu()));
  }
  torch::Tensor forward(torch::Tensor x) {
    const auto halves = x.chunk(2, 3);
    const auto left = to_tokens(convs_->forward(to_images(halves[0]).contiguous(at::MemoryFormat::ChannelsLast)));
    const auto right = self_attention_->forward(ln_1_(halves[1]));
    return x + torch::stack({left, right}, 4).flatten(3);
  }

 private:
  torch::nn::LayerNorm ln_1_{nullptr};
  std::shared_ptr<Ss2d> self_attention_;
  Chain convs_{nullptr};
};

class PatchEmbed : public torch::nn::Module {
 public:
  PatchEmbed(int in, int width, int patch) {
    proj_ = register_module("proj", patch_conv(in, width, patch));
    norm_ = register_module("norm", layer_norm(width));
  }
  torch::Tensor forward(const torch::Tensor& images) { return norm_(to_tokens(proj_(images))); }

 private:
  Conv2d proj_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};

/// Four tokens into one; an odd last row or column is left out.
class PatchMerging : public torch::nn::Module {
 public:
  explicit PatchMerging(int width) {
    reduction_ = register_module("reduction", linear(4 * width, 2 * width, false));
    norm_ = register_module("norm", layer_norm(4 * width));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    const auto h = x.size(1) / 2, w = x.size(2) / 2;
    const auto even = x.narrow(1, 0, 2 * h).narrow(2, 0, 2 * w).view({x.size(0), h, 2, w, 2, x.size(3)});
    return reduction_(norm_(even.permute({0, 1, 3, 4, 2, 5}).flatten(3)));
  }

 private:
  Linear reduction_{nullptr};
  torch::nn::LayerNorm norm_{nullptr};
};

class Layer : public torch::nn::Module {
 public:
  Layer(int width, int depth, bool last) {
    blocks_ = register_module("blocks", Chain());
    for (int i = 0; i < depth; ++i) blocks_->push_back(SsConvSsm(width));
    if (!last) downsample_ = register_module("downsample", std::make_shared<PatchMerging>(width));
  }
  torch::Tensor forward(torch::Tensor x) {
    x = tap_tokens(blocks_->forward(x));
    return downsample_ ? downsample_->forward(x) : x;
  }

 private:
  Chain blocks_{nullptr};
  std::shared_ptr<PatchMerging> downsample_;
};

struct Size {
  int width;  ///< of the first layer; each next has twice as many channels
  std::array<int, 4> depths;
};

/// MedMamba (Yue 2024, arXiv:2403.03849). Variant tiny is published; micro and mid are narrower. The published small
/// and base do not follow from their own code, and are left out.
class MedMamba : public Model {
 public:
  MedMamba(const ModelSpec& spec, const Size& size, int patch) {
    patch_embed_ = register_module("patch_embed", std::make_shared<PatchEmbed>(spec.task.channels, size.width, patch));
    layers_ = register_module("layers", Chain());
    for (std::size_t i = 0; i < 4; ++i) layers_->push_back(Layer(size.width << i, size.depths[i], i == 3));
    head_ = register_module("head", linear(size.width << 3, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor images) override {
    return head_(tap(layers_->forward(patch_embed_->forward(images)).mean({1, 2})));
  }

  void initialise(RandomStream& random) override {
    draw_weights<Linear>(*this, random);
    for (const auto& module : modules(/*include_self=*/false))
      if (auto* scan = module->as<Ss2d>()) scan->initialise(random);
  }

 private:
  std::shared_ptr<PatchEmbed> patch_embed_;
  Chain layers_{nullptr};
  Linear head_{nullptr};
};

Result<std::shared_ptr<Model>> build_medmamba(const ModelSpec& spec) {
  static const Size kMicro{32, {1, 1, 2, 1}}, kMid{48, {2, 2, 4, 2}}, kTiny{96, {2, 2, 4, 2}};
  static const std::map<std::string, Size> kVariants{{"", kMicro}, {"micro", kMicro}, {"mid", kMid}, {"tiny", kTiny}};
  const auto found = kVariants.find(spec.model.variant);
  if (found == kVariants.end())
    return fail(Code::kInvalid, "medmamba has variants micro, mid and tiny, not '{}'", spec.model.variant);
  if (spec.model.width != 1)
    return fail(Code::kInvalid, "medmamba has width 1 only, not {}; its sizes are variants", spec.model.width);
  const int patch = spec.model.stem == "standard" ? 4 : spec.model.stem == "half" ? 2 : 1;
  if (spec.task.image_size < 8 * patch)
    return fail(Code::kInvalid, "medmamba: stem {} needs images of {} px or more, not {}", spec.model.stem, 8 * patch,
                spec.task.image_size);
  return std::make_shared<MedMamba>(spec, found->second, patch);
}

const RegisterModel kMedMamba{
    "medmamba",
    {.paradigm = "linear",
     .task = "classification",
     .paper = "Yue 2024, arXiv:2403.03849",
     .build = build_medmamba,
     .sizes = {{"medmamba", 1, "small", "micro"}, {"medmamba", 1, "small", "mid"}, {"medmamba", 1, "small", "tiny"}},
     .published = {{{{"medmamba", 1, "standard", "micro"}, {9, 3, 224}}, 982265, 157266432},
                   {{{"medmamba", 1, "standard", "mid"}, {9, 3, 224}}, 3817929, 609077376},
                   {{{"medmamba", 1, "standard", "tiny"}, {9, 3, 224}}, 14459529, 2241745152},
                   {{{"medmamba", 1, "standard", "tiny"}, {1000, 3, 224}}, 15221608}}}};

}  // namespace
}  // namespace preceptor::models
