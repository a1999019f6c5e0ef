#pragma once
#include <torch/torch.h>

#include "data/source.h"
#include "models/flat_model.h"

namespace preceptor::training::test {

/// Flatten, linear, batch norm, linear: trains in milliseconds, and batch norm throws at a batch of
/// one.
class Tiny : public models::Model {
 public:
  explicit Tiny(const models::TaskOptions& task)
      : in_(register_module(
            "in", torch::nn::Linear(task.channels * task.image_size * task.image_size, 8))),
        norm_(register_module("norm", torch::nn::BatchNorm1d(8))),
        out_(register_module("out", torch::nn::Linear(8, task.classes))) {}
  torch::Tensor forward(torch::Tensor images) override {
    return out_(torch::relu(norm_(in_(images.flatten(1)))));
  }

 private:
  torch::nn::Linear in_;
  torch::nn::BatchNorm1d norm_;
  torch::nn::Linear out_;
};
inline const models::RegisterModel kTiny{
    "test-tiny",
    {"CNN", "classification", "",
     [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
       return std::make_shared<Tiny>(spec.task);
     }}};

inline models::FlatModel made_model(const std::string& name = "test-tiny", int classes = 2,
                                    std::uint64_t seed = 1, int channels = 1, int size = 28) {
  auto model = models::FlatModel::create({{name, 0.5, "small"}, {classes, channels, size}}).value();
  model.initialise(RandomStream(seed, "init"));
  return model;
}

inline data::Dataset phantoms(int images, int classes = 2, double difficulty = 0, int channels = 1,
                              std::uint64_t seed = 1) {
  data::SourceOptions options;
  options.channels = channels;
  options.phantom = {
      .images = images, .sites = 1, .classes = classes, .site_shift = 0, .difficulty = difficulty};
  return data::read_source(options, seed).value().images;
}

/// Small images of noise in which no two are alike.
inline data::Dataset noise(std::size_t images, int channels = 1, int size = 28) {
  data::Dataset set{size, size, channels, {"a", "b"}, {}, {}, {}};
  RandomStream random(3, "noise");
  for (std::size_t i = 0; i < images; ++i) {
    set.labels.push_back(std::int32_t(i % 2));
    for (std::size_t p = 0; p < set.image_bytes(); ++p)
      set.pixels.push_back(std::uint8_t(random.below(256)));
  }
  return set;
}

}  // namespace preceptor::training::test
