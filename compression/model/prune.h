#pragma once
#include "compression/model/cut.h"
#include "compression/model/importance.h"

namespace preceptor::compression {

/// Structured pruning: whole channels and heads go, so that the network is smaller and faster everywhere.
struct PruneOptions {
  std::string criterion = "group_l2";  ///< group_l2, bn_scale, taylor, fpgm
  double ratio = 0.5;                  ///< of the units that go; of the parameters, about 1 − (1 − ratio)²
  std::string scope = "global";        ///< global: the least of all groups, by score over the group's mean; uniform: of each
  double max_layer_ratio = 0.8;        ///< global: of a group, at most
  int round_to = 8;                    ///< what stays of a layer's channels is a multiple, if it has as many
  int steps = 1;                       ///< 1: at once; more: a share, fine-tuning, the next share
  template <class V>
  void visit(V& v) {
    v("criterion", criterion, criteria().names());
    v("ratio", ratio, Range{0, 0.99});
    v("scope", scope, OneOf{"global", "uniform"});
    v("max_layer_ratio", max_layer_ratio, Range{0, 0.99});
    v("round_to", round_to, Range{1, 256});
    v("steps", steps, Range{1, 100});
  }
};

struct PrunedLayer {
  std::string name;              ///< Group::name
  std::int64_t before, after;    ///< channels
};

/// What pruning did.
struct PruneReport {
  std::int64_t parameters_before = 0, parameters_after = 0;  ///< trainable
  std::int64_t macs_before = 0, macs_after = 0;              ///< of one image
  std::vector<PrunedLayer> layers;
  std::vector<Unprunable> unprunable;
};

struct Pruned {
  models::FlatModel model;
  PruneReport report;
};

/// Trains the model on for a while; called after each step but the last, with the number of steps done.
using FineTune = std::function<Result<void>(models::FlatModel& model, int steps_done)>;

/// A smaller model with the values that stay; its spec has the shapes, so it is saved, sent and trained like any other.
/// The given model keeps its values. Works on pruned, factorised and fused networks as well.
/// Errors: those of find_channels and the criterion; kInvalid when nothing can be removed.
Result<Pruned> prune(models::FlatModel& model, const PruneOptions& options, const Evidence& evidence = {}, const FineTune& fine_tune = {});

/// Units that stay when each group goes down to `wanted` units, fewest scores first.
Kept keep_best(const std::vector<Group>& groups, const std::vector<at::Tensor>& scores, const std::vector<std::int64_t>& wanted);

}  // namespace preceptor::compression
