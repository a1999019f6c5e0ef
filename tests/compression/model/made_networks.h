#pragma once
#include "tests/training/made.h"
#include "training/outcome.h"
#include "training/training.h"

namespace preceptor::compression::test {

using training::test::phantoms;

/// First values, and statistics and scales as some training leaves them, so that norms have something to do.
inline models::FlatModel lived_in(const models::ModelOptions& network, int classes = 3) {
  training::use_threads(1);
  auto model = models::FlatModel::create({network, {classes, 1, 28}}).value();
  model.initialise(RandomStream(1, "init"));
  RandomStream random(2, "lived in");
  auto values = model.store();
  for (const auto& piece : model.space().pieces())
    for (auto& value : std::span(values).subspan(piece.offset, piece.size)) {
      if (piece.role == Role::kNormMean || piece.role == Role::kNormBias) value = float(0.1 * random.normal());
      if (piece.role == Role::kNormVariance || piece.role == Role::kNormScale) value = float(random.uniform(0.7, 1.4));
    }
  model.load(values);
  model.network().eval();
  return model;
}

/// Noise, dark or light: what any network tells apart after a few steps.
inline data::Dataset dark_and_light(int images) {
  data::Dataset set;
  set.height = set.width = 28;
  set.channels = 1;
  set.classes = {"dark", "light"};
  RandomStream random(3, "dark and light");
  for (int i = 0; i < images; ++i) {
    set.labels.push_back(i % 2);
    for (int p = 0; p < 28 * 28; ++p) set.pixels.push_back(std::uint8_t((i % 2 ? 140 : 90) + 40 * random.uniform(-1, 1)));
  }
  return set;
}

inline at::Tensor some_images(int count = 4) {
  torch::manual_seed(5);
  return torch::randn({count, 1, 28, 28});
}

inline at::Tensor logits(models::FlatModel& model, const at::Tensor& images) {
  torch::NoGradGuard no_grad;
  model.network().eval();
  return model.forward(images);
}

/// Largest difference of the logits, relative to the largest.
inline double difference(models::FlatModel& a, models::FlatModel& b) {
  const auto x = logits(a, some_images()), y = logits(b, some_images());
  return ((x - y).abs().max() / x.abs().max()).item<double>();
}

inline void fit(models::FlatModel& model, const data::Dataset& set, training::TrainingOptions options) {
  const auto objective = training::make_supervised(options, set);
  const auto done = training::train(model, set, options, *objective, 1);
  EXPECT_TRUE(done) << done.error().message;
}

inline double accuracy(models::FlatModel& model, const data::Dataset& set) {
  return training::measure(training::outcome_of(model, set), 1).accuracy->value;
}

}  // namespace preceptor::compression::test
