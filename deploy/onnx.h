#pragma once
#include <map>

#include "models/graph.h"

namespace preceptor::deploy {

/// Versions of the format that files are written in: those of the packaged libonnx, which ONNX Runtime reads from 1.12 on.
/// 17 is the first with LayerNormalization.
constexpr int kOnnxOpset = 17, kOnnxIr = 8;

/// A network as an ONNX file's bytes. Input "images" [batch, C, S, S] float32, output "logits", for any batch.
///
/// Operators of LibTorch become ONNX's. Layers that round to eight bits become QDQ: their input through QuantizeLinear and
/// DequantizeLinear (uint8, one step a tensor), their weight int8 with one step an output channel, a convolution's bias
/// int32 in the product of both steps. Selective scan and BiWKV become a Scan over the tokens: exact, and memory grows with
/// the number of tokens, not with its square.
///
/// graph: after models::freeze. metadata: the file's metadata_props. The result passed ONNX's own checker.
/// Error: kInvalid naming an operator or an attribute that has no form here.
Result<std::string> to_onnx(const models::Graph& graph, const std::string& name, const std::map<std::string, std::string>& metadata);

}  // namespace preceptor::deploy
