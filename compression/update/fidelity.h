#pragma once
#include <span>
#include <string>
#include <vector>

#include "common/result.h"

namespace preceptor::compression {

/// What is left of an update after a stage of its codec and all before it. A cosine near 0 means
/// that the stage destroys what was learned; error feedback or the mean over sites may still save
/// part of it, but it is worth a warning.
struct Fidelity {
  std::string stage;      ///< "topk", "clip" …
  double cosine = 0;      ///< of the decoded to the true update; 1: same direction
  double norm_ratio = 0;  ///< of the decoded to the true update's L2 norm
};

/// Both 1 where both are zero; cosine 0 where one is.
Fidelity measure_fidelity(std::string stage, std::span<const float> truth,
                          std::span<const float> decoded);

}  // namespace preceptor::compression
