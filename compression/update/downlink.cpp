#include "compression/update/downlink.h"

#include <algorithm>
#include <cmath>

namespace preceptor::compression {

Result<ModelDelta> ModelDelta::create(const DownlinkOptions& options, const ParameterSpace& space) {
  UpdateOptions stages;
  stages.weights = {{{"codec", "quantize"}, {"bits", fmt::format("{}", options.bits)}},
                    {{"codec", "zstd"}}};
  stages.statistics = {{{"codec", "zstd"}}};
  stages.error_feedback = false;  // the caller's: it knows what every node already has
  auto codec = UpdateCodec::create(stages, space);
  if (!codec) return in("downlink", codec.error());
  return ModelDelta(std::move(*codec), space);
}

Result<Bytes> ModelDelta::encode(std::span<const float> from, std::span<const float> to,
                                 std::uint64_t seed) const {
  std::vector<float> delta(to.size());
  for (std::size_t i = 0; i < to.size(); ++i) delta[i] = to[i] - from[i];
  ErrorFeedback none;
  return codec_.encode(delta, seed, none);
}

Result<void> ModelDelta::apply(std::span<const std::byte> delta, std::uint32_t, std::span<float> model) const {
  TRY(codec_.decode(delta, [&](std::size_t offset, std::span<const float> values) -> Result<void> {
    for (std::size_t i = 0; i < values.size(); ++i) model[offset + i] += values[i];
    return {};
  }));
  repair_variances(space_, model);
  if (!std::ranges::all_of(model, [](float x) { return std::isfinite(x); }))
    return fail(Code::kCorrupt, "it leads to a value that is not finite");
  return {};
}

}  // namespace preceptor::compression
