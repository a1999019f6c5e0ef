#pragma once
#include <set>

#include "compression/model/labels.h"
#include "models/graph.h"

namespace preceptor::compression {

/// Every value of a graph with its labels. A value may have several label tensors: an element is gone when any of its
/// labels is, so a weight [out, in, k, k] has one for its outputs and one for its inputs.
struct Labelled {
  Labels labels;
  std::vector<std::vector<at::Tensor>> of_value;  ///< by value of the graph; empty: nothing of it can go
  std::set<std::int64_t> in_pairs;  ///< labels of which two must stay: a grouped convolution with one would be a depthwise one
};

/// Follows channels from operator to operator. Operators that compute join the labels of what they combine; operators
/// that only move elements are run on the labels themselves. What stays of a value must be a product of what stays along
/// each dimension, so where a reshape splits or joins channels, the labels across the other factor are joined: whole heads of an
/// attention, both halves of a shuffle. Unknown operators fix what they take. The image and the logits are fixed.
Labelled propagate(const models::Graph& graph);

}  // namespace preceptor::compression
