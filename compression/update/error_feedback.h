#pragma once
#include "compression/update/pipeline.h"

namespace preceptor::compression {

/// What lossy codecs left out of earlier updates, added to the next one (Seide 2014,
/// doi:10.21437/Interspeech.2014-274; Karimireddy 2019, arXiv:1901.09847). Lives at the node, one
/// float a parameter; owned by one thread.
class ErrorFeedback {
 public:
  /// Adds the memory to `update`, encodes, keeps what the encoding lost. Returns the bytes for the
  /// wire.
  Result<Bytes> encode(const Pipeline& pipeline, std::span<const float> update, std::uint64_t seed);
  std::span<const float> memory() const { return memory_; }
  void restore(std::vector<float> memory) { memory_ = std::move(memory); }

 private:
  std::vector<float> memory_;
};

}  // namespace preceptor::compression
