#pragma once
#include "models/flat_model.h"
#include "models/graph.h"

namespace preceptor::compression {

/// Where the units of a group lie in one dimension of one parameter.
struct Slot {
  std::string parameter;
  std::int64_t dim = 0;
  at::Tensor unit;  ///< int64 [size of dim]: the group's unit that each element belongs to; −1: none of its
};

/// Units that play the same role, each of which can be removed by itself: channels coupled through residuals,
/// normalisation, depthwise convolutions and concatenation; heads of an attention (DepGraph, Fang 2023, arXiv:2301.12900).
struct Group {
  std::string name;  ///< the layer that makes the channels: "layer1.0.conv1"
  std::vector<Slot> slots;
  std::int64_t units = 0;
  std::int64_t channels_a_unit = 1;  ///< of the layer that names the group: 64 for a head of 64
  std::int64_t least = 1;            ///< that must stay
  std::int64_t first = 0;            ///< its first unit's number among all units
};

/// Channels that stay, and why.
struct Unprunable {
  std::string name;
  std::int64_t channels = 0;
  std::string reason;
};

/// What can be removed from a network. The graph shares the network's tensors and must not outlive it.
struct Channels {
  models::Graph graph;
  std::vector<Group> groups;
  std::vector<Unprunable> unprunable;
  /// By value of the graph: tensors that broadcast to it, with the number of the unit that each element goes with; −1: none.
  std::vector<std::vector<at::Tensor>> of_value;
  std::int64_t units = 0;  ///< of all groups
};

/// Traces the network and follows its channels. Then each group is put to the test on random values: a network without
/// one of its units must compute what the whole one does with that unit masked. Groups that fail, because the network's code
/// counts on a number of channels, are unprunable with that reason. Error: kInvalid for networks with LoRA or int8
/// layers, which come after pruning; that of models::trace.
Result<Channels> find_channels(models::FlatModel& model);

}  // namespace preceptor::compression
