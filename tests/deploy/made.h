#pragma once
#include <torch/torch.h>

#include "data/source.h"
#include "models/model.h"
#include "models/structure.h"
#include "tests/support/random_model.h"
#include "tests/support/temp_dir.h"
#include "training/batch.h"

namespace preceptor::deploy::test {

using preceptor::test::TempDir;
constexpr int kSize = 32;  ///< pixels; all of the zoo takes it
/// Networks this small gain nothing from threads, which on busy cores wait for each other.
inline const bool kOneThread = (torch::set_num_threads(1), true);

/// Ready for inference.
inline models::FlatModel made_model(const std::string& name, int channels) {
  auto model = preceptor::test::random_model(name, {3, channels, kSize}).value();
  model.network().eval();
  return model;
}

/// Real images where they are there, else phantoms: [count, channels, S, S], as training gets them.
inline torch::Tensor images(int channels, std::size_t count) {
  data::SourceOptions options;
  options.image_size = kSize;
  options.channels = channels;
  options.phantom.images = 64;
  if (const auto npz = preceptor::test::shared_data("pneumoniamnist/pneumoniamnist.npz"); !npz.empty()) {
    options.kind = "medmnist";
    options.path = npz;
  }
  const auto source = data::read_source(options, 1).value();
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < count; ++i) index.push_back(i * source.images.size() / count);
  return training::make_batch(source.images, index).images;
}

/// The same network with every layer that can rounding to eight bits, between bounds that a few batches showed.
inline models::FlatModel rounded(models::FlatModel& model, const torch::Tensor& shown) {
  torch::NoGradGuard no_grad;
  auto spec = model.spec();
  spec.structure.fused = true;
  auto& network = model.network();
  network.fuse();
  for (const auto& [layer, module] : models::adaptable_layers(network)) spec.structure.int8[layer] = "observed";
  auto made = models::FlatModel::create(spec).value();
  auto to = made.network().named_parameters(), buffers = made.network().named_buffers();
  for (const auto& buffer : buffers) to.insert(buffer.key(), buffer.value());
  for (const auto& item : network.named_parameters()) to[item.key()].copy_(item.value());
  for (const auto& item : network.named_buffers()) to[item.key()].copy_(item.value());
  made.network().train();
  for (const auto& module : made.network().modules())
    if (module->as<torch::nn::BatchNorm2dImpl>()) module->eval();  // bounds as in use, and the statistics stay
  made.forward(shown);
  made.network().eval();
  return made;
}

}  // namespace preceptor::deploy::test
