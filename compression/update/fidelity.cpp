#include "compression/update/fidelity.h"

#include <cmath>

namespace preceptor::compression {

Fidelity measure_fidelity(std::string stage, std::span<const float> truth,
                          std::span<const float> decoded) {
  double dot = 0, all = 0, left = 0;
  for (std::size_t i = 0; i < truth.size(); ++i) {
    dot += double(truth[i]) * decoded[i];
    all += double(truth[i]) * truth[i];
    left += double(decoded[i]) * decoded[i];
  }
  if (all == 0 && left == 0) return {std::move(stage), 1, 1};
  if (all == 0 || left == 0) return {std::move(stage), 0, 0};
  return {std::move(stage), dot / std::sqrt(all * left), std::sqrt(left / all)};
}

}  // namespace preceptor::compression
