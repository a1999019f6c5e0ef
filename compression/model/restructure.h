#pragma once
#include <map>

#include "models/flat_model.h"

/// What pruning, quantisation and factorisation share: a network of another structure takes over values by name.
namespace preceptor::compression {

/// Views of a model's pieces by name: what is written to them is written to the model.
std::map<std::string, at::Tensor> tensors_of(models::FlatModel& model);

/// The same architecture with another structure, on the same device. Pieces that both have, by name and shape, keep their
/// values; the others are zero. Error: kInvalid naming the layer that does not fit.
Result<models::FlatModel> restructured(models::FlatModel& model, const models::StructureOptions& structure);

/// Branches that only training needs as one convolution each (Model::fuse); the same logits in evaluation mode, within
/// rounding. A copy, also where there is nothing to fuse.
Result<models::FlatModel> fused(models::FlatModel& model);

/// Whether the layer's name begins with one of these.
bool begins_with(const std::string& layer, const std::vector<std::string>& beginnings);

}  // namespace preceptor::compression
