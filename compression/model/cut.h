#pragma once
#include "compression/model/channels.h"

namespace preceptor::compression {

/// By number of the unit: whether it stays.
using Kept = std::vector<bool>;

/// A new, smaller model of the units that stay, with their values: the same spec with smaller structure.shapes.
/// Error: kInvalid when the network cannot be built so.
Result<models::FlatModel> cut(models::FlatModel& model, const Channels& channels, const Kept& kept);

/// Logits of the whole network with the other units masked: zero after every operator, and left out of the statistics of layer
/// and group norms. What the network cut to `kept` computes. Images [B, C, S, S].
at::Tensor run_masked(const Channels& channels, const Kept& kept, const at::Tensor& images);

}  // namespace preceptor::compression
