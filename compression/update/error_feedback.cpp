#include "compression/update/error_feedback.h"

#include "compression/update/passes.h"

namespace preceptor::compression {

Result<Bytes> ErrorFeedback::encode(const Pipeline& pipeline, std::span<const float> update,
                                    std::uint64_t seed) {
  if (!memory_.empty() && memory_.size() != update.size())
    return fail(Code::kInvalid,
                "error feedback holds {} floats and the update has {}; start it afresh",
                memory_.size(), update.size());
  std::vector<float> wanted(update.begin(), update.end());
  if (!memory_.empty()) add(wanted, memory_);
  if (!all_finite(wanted))
    return fail(Code::kInvalid, "the update has a value that is not finite: training diverged");
  auto bytes = pipeline.encode(wanted, seed);
  TRY(pipeline.decode(bytes, wanted.size(),
                      [&](std::size_t offset, std::span<const float> sent) -> Result<void> {
                        subtract(std::span(wanted).subspan(offset, sent.size()), sent);
                        return {};
                      }));
  memory_ = std::move(wanted);
  return bytes;
}

}  // namespace preceptor::compression
