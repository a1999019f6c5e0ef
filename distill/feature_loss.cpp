#include "distill/feature_loss.h"

#include <torch/torch.h>

namespace preceptor::distill {

Registry<FeatureLossEntry>& feature_losses() {
  static Registry<FeatureLossEntry> registry("feature loss");
  return registry;
}

std::vector<MapPair> paired_maps(const models::Features& student, const models::Features& teacher) {
  const auto count = std::min(student.maps.size(), teacher.maps.size());
  TORCH_CHECK(count > 0, "a network without taps (models/tap.h) has no features to compare");
  std::vector<MapPair> pairs;
  for (std::size_t i = 0; i < count; ++i) {
    const auto &s = student.maps[student.maps.size() - count + i], &t = teacher.maps[teacher.maps.size() - count + i];
    const std::vector<std::int64_t> size{std::min(s.size(2), t.size(2)), std::min(s.size(3), t.size(3))};
    const auto fit = [&](const at::Tensor& map) {
      return map.sizes().slice(2) == at::IntArrayRef(size) ? map : torch::adaptive_avg_pool2d(map, size);
    };
    pairs.push_back({fit(s), fit(t)});
  }
  return pairs;
}

}  // namespace preceptor::distill
