#pragma once
#include "models/flat_model.h"
#include "models/stem.h"

namespace preceptor::test {

/// The smallest size of an architecture with seeded weights and with statistics as after some training, so that folding
/// them has something to do. Scales are below one: above, deep networks without a norm between their blocks (RepViT)
/// double a rounding error a block. Error: the architecture does not take such images.
inline Result<models::FlatModel> random_model(const std::string& name, const models::TaskOptions& task) {
  auto model = TRY(models::create_at_size((*models::zoo().find(name))->sizes.front(), task));
  model.initialise(RandomStream(1, name));
  RandomStream random(2, name);
  auto values = model.store();
  for (const auto& piece : model.space().pieces())
    for (std::size_t i = 0; i < piece.size; ++i) {
      auto& value = values[piece.offset + i];
      if (piece.role == Role::kNormMean) value = float(0.1 * random.normal());
      if (piece.role == Role::kNormVariance) value = float(random.uniform(0.7, 1.4));
      if (piece.role == Role::kNormScale) value = float(random.uniform(0.4, 0.9));
    }
  model.load(values);
  return model;
}

}  // namespace preceptor::test
