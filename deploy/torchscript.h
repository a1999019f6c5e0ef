#pragma once
#include <map>

#include "models/graph.h"

namespace preceptor::deploy {

/// A network as a TorchScript file's bytes: forward(images [batch, C, S, S]) → logits, for any batch, as torch.jit.freeze
/// leaves a module: weights are constants. Selective scan and BiWKV, which stock LibTorch does not have, are loops in
/// TorchScript. Layers that round to eight bits round by fake_quantize_per_tensor_affine.
/// graph: after models::freeze. files: texts that go along (torch.jit.load's _extra_files).
/// Error: kInvalid when LibTorch refuses a part of it.
Result<std::string> to_torchscript(const models::Graph& graph, const std::map<std::string, std::string>& files);

}  // namespace preceptor::deploy
