#pragma once
#include "common/options.h"

namespace preceptor::distill {

/// How a teacher enters a loss: hard_weight · (cross-entropy, or Dice + cross-entropy) + soft_weight · loss(logits of student
/// and teacher) + feature_weight · features(what both make of the images on the way).
struct DistillationOptions {
  std::string loss = "soft-target";  ///< a registered loss of logits
  double temperature = 4;
  double hard_weight = 0.1;
  double soft_weight = 0.9;
  double alpha = 1, beta = 8;        ///< of "dkd" alone: weights of target and of non-target classes
  std::string features = "none";     ///< a registered loss of features, or none
  double feature_weight = 1;         ///< 1: as strong as in the papers that report it
  template <class V>
  void visit(V& v) {
    v("loss", loss);
    v("temperature", temperature, Range{0.01, 1000});
    v("hard_weight", hard_weight, Range{0, 1000});
    v("soft_weight", soft_weight, Range{0, 1000});
    v("alpha", alpha, Range{0, 1000});
    v("beta", beta, Range{0, 1000});
    v("features", features);
    v("feature_weight", feature_weight, Range{0, 1000});
  }
};

}  // namespace preceptor::distill
