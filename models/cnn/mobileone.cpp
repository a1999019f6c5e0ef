#include "models/cnn/reparameterise.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

/// A convolution trained as a sum: k times itself, a 1×1 (beside a 3×3 only) and a skip, each with its batch norm; ReLU.
class Block : public Fusible {
 public:
  struct Shape {
    int in, out, kernel, stride, groups, branches;
    bool skip;
  };
  explicit Block(const Shape& s) : stride_(s.stride) {
    torch::nn::ModuleList same;
    for (int i = 0; i < s.branches; ++i) {
      branches_.push_back(ConvNorm("conv", conv(s.in, s.out, s.kernel, s.stride, s.groups)));
      same->push_back(branches_.back());
    }
    register_module("conv_kxk", same);
    if (s.kernel > 1)
      scale_ = register_module("conv_scale", ConvNorm("conv", conv(s.in, s.out, 1, 1, s.groups)));
    if (s.skip) identity_ = register_module("identity", norm(s.in));
  }
  torch::Tensor forward(const torch::Tensor& x) {
    if (fused_) return fused_(x).relu_();
    auto sum = branches_[0](x);
    for (std::size_t i = 1; i < branches_.size(); ++i) sum += branches_[i](x);
    if (scale_) sum += scale_(every(stride_, x));
    if (identity_) sum += identity_(x);
    return sum.relu_();
  }
  bool fused() const override { return bool(fused_); }
  void fuse() override {
    if (fused_) return;
    const auto like = branches_[0]->conv_layer();
    auto sum = branches_[0]->kernel();
    for (std::size_t i = 1; i < branches_.size(); ++i) sum = sum + branches_[i]->kernel();
    if (scale_) sum = sum + scale_->kernel();
    if (identity_) sum = sum + fold(identity_kernel(like), identity_);
    for (const auto& child : named_children().keys()) unregister_module(child);
    branches_.clear();
    scale_ = nullptr;
    identity_ = nullptr;
    fused_ = register_module("reparam_conv", convolution(sum, like));
  }

 private:
  int stride_;
  std::vector<ConvNorm> branches_;
  ConvNorm scale_{nullptr};
  BatchNorm2d identity_{nullptr};
  Conv2d fused_{nullptr};
};

struct Variant {
  std::array<int, 5> channels;  ///< of the stem and the four stages
  int branches;                 ///< k
};

/// MobileOne (Vasu 2022, arXiv:2206.04040): pairs of depthwise 3×3 and 1×1 Blocks. The half stem has stride 1,
/// the small stem the first stage as well.
class MobileOne : public Model {
 public:
  MobileOne(const ModelSpec& spec, const Variant& variant) {
    int in = variant.channels[0];
    stem_ = register_module("stem", std::make_shared<Block>(Block::Shape{
                                        spec.task.channels, in, 3, spec.model.stem == "standard" ? 2 : 1, 1, 1, false}));
    const int pairs[] = {2, 8, 10, 1};
    for (std::size_t s = 0; s < 4; ++s) {
      const int out = variant.channels[s + 1];
      Chain stage;
      for (int i = 0; i < pairs[s]; ++i) {
        const int stride = i > 0 || (s == 0 && spec.model.stem == "small") ? 1 : 2;
        // A stem with stride 1 adds no skip, so that the parameters are those of the published network.
        stage->push_back(Block({in, in, 3, stride, in, variant.branches, i > 0}));
        stage->push_back(Block({in, out, 1, 1, 1, variant.branches, in == out}));
        in = out;
      }
      stages_->push_back(stage);
    }
    register_module("stages", stages_);
    const auto head = register_module("head", std::make_shared<torch::nn::Module>("head"));
    fc_ = head->register_module("fc", Linear(in, spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override { return fc_(tap(global_pool(tap_children(*stages_, stem_->forward(x))))); }
  void fuse() override { fuse_parts(*this); }

 private:
  std::shared_ptr<Block> stem_;
  Chain stages_;
  Linear fc_{nullptr};
};

/// The default is the smallest as it is trained: S0 needs four branches of everything.
Result<std::shared_ptr<Model>> build_mobileone(const ModelSpec& spec) {
  static const std::map<std::string, Variant> kVariants{
      {"", {{64, 96, 192, 512, 1280}, 1}}, {"s1", {{64, 96, 192, 512, 1280}, 1}}, {"s0", {{48, 48, 128, 256, 1024}, 4}}};
  const auto found = kVariants.find(spec.model.variant);
  if (found == kVariants.end()) return fail(Code::kInvalid, "mobileone has variants s0 and s1, not '{}'", spec.model.variant);
  if (spec.model.width != 1) return fail(Code::kInvalid, "mobileone has width 1, not {}; choose a variant", spec.model.width);
  return std::make_shared<MobileOne>(spec, found->second);
}

const RegisterModel kMobileOne{
    "mobileone",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "Vasu 2022, arXiv:2206.04040",
     .build = build_mobileone,
     .sizes = {{"mobileone", 1, "small", "s1"}, {"mobileone", 1, "small", "s0"}},
     .published = {{{{"mobileone", 1, "standard", "s1"}, {1000, 3, 224}}, 4825192, 830062080},
                   {{{"mobileone", 1, "standard", "s1"}, {1000, 3, 224}}, 4764840, 825057024, true},
                   {{{"mobileone", 1, "standard", "s0"}, {1000, 3, 224}}, 5293272, 1051935232},
                   {{{"mobileone", 1, "standard", "s0"}, {1000, 3, 224}}, 2078504, 275110400, true},
                   {{{"mobileone", 1, "standard", "s0"}, {9, 3, 224}}, 4277497},
                   {{{"mobileone", 1, "standard", "s0"}, {9, 3, 64}}, 1062729, 22383616, true},
                   {{{"mobileone", 1, "standard", "s0"}, {9, 3, 128}}, 1062729, 89506816, true},
                   {{{"mobileone", 1, "standard", "s0"}, {9, 3, 224}}, 1062729, 274095616, true}},
     .names = {{"timm", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
