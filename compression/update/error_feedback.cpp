#include "compression/update/error_feedback.h"

#include <cmath>

#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

/// Error: kInvalid, where one is there and not of the update's size.
Result<void> check_size(std::span<const float> memory, std::span<const float> update) {
  if (!memory.empty() && memory.size() != update.size())
    return fail(Code::kInvalid,
                "error feedback holds {} floats and the update has {}; start it afresh",
                memory.size(), update.size());
  return {};
}

void clip(std::span<float> update, double norm) {
  double square = sum_of_squares(update);
  if (!std::isfinite(square)) {  // in float it is past the end
    square = 0;
    for (const double x : update) square += x * x;
  }
  const auto length = std::sqrt(square);
  if (length > norm) multiply(update, float(norm / length));
}

}  // namespace

Result<Bytes> ErrorFeedback::encode(const Coder& coder, std::span<const float> update,
                                    const DgcOptions& dgc) {
  TRY(check_size(memory_, update));
  TRY(check_size(velocity_, update));
  std::vector<float> wanted(update.begin(), update.end()), velocity;
  if (dgc.clip_norm > 0) clip(wanted, dgc.clip_norm);
  if (dgc.momentum > 0) {
    velocity = velocity_.empty() ? std::vector<float>(update.size()) : velocity_;
    multiply_add(velocity, float(dgc.momentum), wanted);
    wanted = velocity;
  }
  if (!memory_.empty()) add(wanted, memory_);
  if (!all_finite(wanted))
    return fail(Code::kInvalid, "the update has a value that is not finite: training diverged");
  auto bytes = TRY(coder.encode(wanted));
  TRY(coder.decode(bytes, [&](std::size_t offset, std::span<const float> sent) -> Result<void> {
    subtract(std::span(wanted).subspan(offset, sent.size()), sent);
    if (!velocity.empty() && dgc.masking)
      for (std::size_t i = 0; i < sent.size(); ++i)
        if (sent[i] != 0) velocity[offset + i] = 0;
    return {};
  }));
  memory_ = std::move(wanted);
  velocity_ = std::move(velocity);
  return bytes;
}

Result<Bytes> ErrorFeedback::encode(const Pipeline& pipeline, std::span<const float> update,
                                    std::uint64_t seed) {
  return encode({[&](std::span<const float> floats) -> Result<Bytes> {
                   return pipeline.encode(floats, seed);
                 },
                 [&](const Bytes& bytes, const Coder::Fold& fold) {
                   return pipeline.decode(bytes, update.size(), fold);
                 }},
                update);
}

}  // namespace preceptor::compression
