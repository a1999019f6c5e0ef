#include "models/layers.h"
#include "models/model.h"
#include "models/tap.h"

namespace preceptor::models {
namespace {

/// Channels of the two halves take turns. One copy, in channels_last; LibTorch 1.13's own has no derivative.
torch::Tensor shuffle(const torch::Tensor& x) {
  const auto n = x.size(0), c = x.size(1), h = x.size(2), w = x.size(3);
  return x.permute({0, 2, 3, 1}).reshape({n, h, w, 2, c / 2}).transpose(3, 4).reshape({n, h, w, c}).permute({0, 3, 1, 2});
}

/// Stride 1: half of the channels pass, the other half goes through 1×1, depthwise 3×3, 1×1.
/// Stride 2: both branches work on all channels. Then the halves are shuffled together.
class Unit : public torch::nn::Module {
 public:
  Unit(int in, int out, int stride) : split_(stride == 1) {
    const int half = out / 2;
    if (!split_)
      branch1_ = register_module("branch1", Chain(conv(in, in, 3, stride, in), norm(in), conv(in, half, 1), norm(half), relu()));
    branch2_ = register_module("branch2", Chain(conv(split_ ? half : in, half, 1), norm(half), relu(),
                                                                conv(half, half, 3, stride, half), norm(half),
                                                                conv(half, half, 1), norm(half), relu()));
  }
  torch::Tensor forward(torch::Tensor x) {
    if (!split_) return shuffle(torch::cat({branch1_->forward(x), branch2_->forward(x)}, 1));
    const auto halves = x.chunk(2, 1);
    return shuffle(torch::cat({halves[0], branch2_->forward(halves[1])}, 1));
  }

 private:
  bool split_;
  Chain branch1_{nullptr}, branch2_{nullptr};
};

/// ShuffleNetV2 (Ma 2018, arXiv:1807.11164). The small stem has stride 1 and no pooling; half pools only.
class ShuffleNetV2 : public Model {
 public:
  ShuffleNetV2(const ModelSpec& spec, const std::array<int, 5>& channels) : pool_(spec.model.stem != "small") {
    int in = channels[0];
    conv1_ = register_module("conv1", Chain(conv(spec.task.channels, in, 3, spec.model.stem == "standard" ? 2 : 1), norm(in), relu()));
    const int repeats[] = {4, 8, 4};
    for (int s = 0; s < 3; ++s) {
      Chain stage;
      for (int i = 0; i < repeats[s]; ++i) {
        stage->push_back(Unit(in, channels[std::size_t(s) + 1], i == 0 ? 2 : 1));
        in = channels[std::size_t(s) + 1];
      }
      stages_->push_back(register_module("stage" + std::to_string(s + 2), stage));
    }
    conv5_ = register_module("conv5", Chain(conv(in, channels[4], 1), norm(channels[4]), relu()));
    fc_ = register_module("fc", Linear(channels[4], spec.task.classes));
  }
  torch::Tensor forward(torch::Tensor x) override {
    x = conv1_->forward(x);
    if (pool_) x = torch::max_pool2d(x, 3, 2, 1);
    return fc_(tap(global_pool(conv5_->forward(tap_children(*stages_, x)))));
  }

 private:
  bool pool_;
  Chain conv1_{nullptr}, stages_, conv5_{nullptr};
  Linear fc_{nullptr};
};

Result<std::shared_ptr<Model>> build_shufflenet(const ModelSpec& spec) {
  static const std::map<double, std::array<int, 5>> kChannels{
      {0.5, {24, 48, 96, 192, 1024}}, {1.0, {24, 116, 232, 464, 1024}}, {1.5, {24, 176, 352, 704, 1024}}, {2.0, {24, 244, 488, 976, 2048}}};
  const auto found = kChannels.find(spec.model.width);
  if (found == kChannels.end()) return fail(Code::kInvalid, "shufflenet_v2 has widths 0.5, 1.0, 1.5 and 2.0, not {}", spec.model.width);
  return std::make_shared<ShuffleNetV2>(spec, found->second);
}

const RegisterModel kShuffleNetV2{
    "shufflenet_v2",
    {.paradigm = "CNN",
     .task = "classification",
     .paper = "Ma 2018, arXiv:1807.11164",
     .build = build_shufflenet,
     .sizes = {{"shufflenet_v2", 0.5}, {"shufflenet_v2", 1}},
     .published = {{{{"shufflenet_v2", 0.5, "standard"}, {1000, 3, 224}}, 1366792, 40476448},
                   {{{"shufflenet_v2", 0.5, "standard"}, {9, 3, 224}}, 351017, 39461664},
                   {{{"shufflenet_v2", 1, "standard"}, {1000, 3, 224}}, 2278604, 144907992},
                   {{{"shufflenet_v2", 0.5, "small"}, {9, 3, 28}}, 351017, 9378192},
                   {{{"shufflenet_v2", 1, "small"}, {9, 3, 28}}, 1262829, 37891748}},
     .names = {{"torchvision", [](const std::string& ours) { return ours; }}}}};

}  // namespace
}  // namespace preceptor::models
