#pragma once
#include "common/options.h"

namespace preceptor::distill {

/// How soft targets enter a loss: hard_weight · (cross-entropy, or Dice + cross-entropy) + soft_weight · loss(student, teacher).
struct DistillationOptions {
  std::string loss = "soft-target";  ///< a registered loss
  double temperature = 4;
  double hard_weight = 0.1;
  double soft_weight = 0.9;
  template <class V>
  void visit(V& v) {
    v("loss", loss);
    v("temperature", temperature, Range{0.01, 1000});
    v("hard_weight", hard_weight, Range{0, 1000});
    v("soft_weight", soft_weight, Range{0, 1000});
  }
};

}  // namespace preceptor::distill
