#pragma once
#include <torch/torch.h>

#include <numeric>

#include "models/batch_norm.h"
#include "models/layers.h"
#include "tests/training/made_masks.h"
#include "training/private_training.h"

namespace preceptor::training::test {

/// Every kind of layer that has a rule, once.
class Layers : public models::Model {
 public:
  explicit Layers(const models::TaskOptions& task) {
    using Conv = torch::nn::Conv2dOptions;
    const auto add = [&](const char* name, const Conv& options) { return register_module(name, models::Conv2d(options)); };
    stem_ = add("stem", Conv(task.channels, 12, 3).stride(2).padding(1));
    depthwise3_ = add("depthwise3", Conv(12, 12, 3).padding(1).groups(12).bias(false));
    depthwise5_ = add("depthwise5", Conv(12, 12, 5).padding(2).groups(12).stride(2));
    depthwise7_ = add("depthwise7", Conv(12, 12, 7).padding(3).groups(12));
    grouped_ = add("grouped", Conv(12, 24, 3).padding(1).groups(3));
    dilated_ = add("dilated", Conv(24, 24, 3).padding(2).dilation(2).groups(24));
    strided_ = add("strided", Conv(24, 20, 1).stride(2));
    point_ = add("point", Conv(20, 32, 1));
    norm_ = register_module("norm", torch::nn::GroupNorm(torch::nn::GroupNormOptions(4, 32)));
    token_ = register_parameter("token", torch::zeros({1, 1, 32}));
    positions_ = register_parameter("positions", torch::zeros({1, 17, 32}));
    scale_ = register_parameter("scale", torch::ones({32}));
    layer_norm_ = register_module("layer_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({32})));
    mix_ = register_module("mix", models::Linear(torch::nn::LinearOptions(32, 32)));
    const models::GroupedNorms scope(true);
    batch_ = register_module("batch", models::BatchNorm2d(12));
    head_ = register_module("head", models::Linear(torch::nn::LinearOptions(32, task.classes)));
  }
  torch::Tensor forward(torch::Tensor x) override {
    x = torch::relu(batch_(stem_(x)));
    x = depthwise7_(depthwise5_(depthwise3_(x)));
    x = norm_(point_(torch::silu(strided_(dilated_(grouped_(x))))));
    auto tokens = x.flatten(2).transpose(1, 2);
    tokens = torch::cat({token_.expand({x.size(0), 1, 32}), tokens}, 1) + positions_;
    tokens = tokens + scale_ * torch::gelu(mix_(layer_norm_(tokens)));
    return head_(tokens.select(1, 0) + tokens.mean(1));
  }

 private:
  models::Conv2d stem_{nullptr}, depthwise3_{nullptr}, depthwise5_{nullptr}, depthwise7_{nullptr}, grouped_{nullptr}, dilated_{nullptr},
      strided_{nullptr}, point_{nullptr};
  torch::nn::GroupNorm norm_{nullptr};
  models::BatchNorm2d batch_{nullptr};
  torch::Tensor token_, positions_, scale_;
  torch::nn::LayerNorm layer_norm_{nullptr};
  models::Linear mix_{nullptr}, head_{nullptr};
};
inline const models::RegisterModel kLayers{"test-layers",
                                    {"CNN", "classification", "",
                                     [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                       return std::make_shared<Layers>(spec.task);
                                     }}};

inline models::FlatModel grouped(const std::string& name, int classes = 2, int size = 28, double width = 0.5) {
  models::ModelSpec spec{{name, width, "small"}, {classes, 1, size}};
  spec.model.normalisation = "group";
  auto model = models::FlatModel::create(spec);
  EXPECT_TRUE(model) << model.error().message;
  model->initialise(RandomStream(1, "init"));
  // Scales and heads away from 0, so that every layer has a gradient.
  auto values = model->store();
  RandomStream random(2, "values");
  for (auto& value : values) value += 0.05f * float(random.normal());
  model->load(values);
  model->network().train();
  return std::move(*model);
}

inline Batch batch_of(const data::Dataset& set, const std::vector<std::size_t>& index) { return make_batch(set, index); }

inline std::vector<std::size_t> first(std::size_t count) {
  std::vector<std::size_t> index(count);
  std::iota(index.begin(), index.end(), std::size_t{0});
  return index;
}

inline double error(const at::Tensor& got, const at::Tensor& expected) { return ((got - expected).norm() / expected.norm()).item<double>(); }

}  // namespace preceptor::training::test
