#pragma once
#include "models/model.h"

/// Compression changes a network's structure; the structure is data, so that a compressed network is built, saved,
/// sent and trained like any other.
namespace preceptor::models {

/// Changes `network`, freshly built, as `structure` says. Pruned depthwise convolutions and layer norms follow the shapes
/// of their weights. Nothing grows beyond the registered network's size, so a peer's structure costs no memory.
/// Error: kInvalid naming the layer or parameter.
Result<void> apply(const StructureOptions& structure, Model& network);

/// Layers that compression may change, by name; of a factorised one its factors. Parts of a Fusible are among them only
/// after fuse().
std::map<std::string, std::shared_ptr<torch::nn::Module>> adaptable_layers(Model& network);

/// The layer that gives the logits: that of the last parameter, LoRA's aside.
std::string head_of(Model& network);

/// "32, 64, 3, 3"
std::string shape_text(std::span<const std::int64_t> shape);

/// structure with `shapes` set to what differs in `network` from the network built without them.
/// For a spec whose network was changed in place.
Result<StructureOptions> with_shapes_of(const ModelSpec& spec, Model& network);

}  // namespace preceptor::models
