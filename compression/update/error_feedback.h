#pragma once
#include "compression/update/pipeline.h"

namespace preceptor::compression {

/// Deep gradient compression (Lin 2018, arXiv:1712.01887): what makes sparse updates, down to one
/// value in a thousand, learn as dense ones do. Meant for `topk`.
struct DgcOptions {
  double momentum = 0;   ///< momentum correction: accumulates velocity instead of updates; 0: none
  double clip_norm = 0;  ///< Euclidean norm that an update has at most before it is added; 0: any
  bool masking = true;   ///< factor masking: values that were sent lose their velocity
  int warm_up = 0;       ///< rounds in which the share that `topk` keeps falls to its `fraction`
  template <class V>
  void visit(V& v) {
    v("momentum", momentum);
    v("clip_norm", clip_norm);
    v("masking", masking);
    v("warm_up", warm_up);
  }
};

/// How floats become bytes, and what the receiver makes of them: called in order of the floats.
struct Coder {
  using Fold = std::function<Result<void>(std::size_t, std::span<const float>)>;
  std::function<Result<Bytes>(std::span<const float>)> encode;
  std::function<Result<void>(const Bytes&, const Fold&)> decode;
};

/// What a node remembers of its updates. First of all what lossy codecs left out of earlier ones,
/// added to the next one (Seide 2014, doi:10.21437/Interspeech.2014-274; Karimireddy 2019,
/// arXiv:1901.09847): one float a parameter. With momentum correction its velocity, too, and what a
/// Transform keeps. Lives at the node; owned by one thread.
class ErrorFeedback {
 public:
  /// Adds the memory to `update`, encodes, keeps what the encoding lost. Returns the bytes for the
  /// wire. Error: kInvalid, for values that are not finite; all memory stays as it was.
  Result<Bytes> encode(const Coder& coder, std::span<const float> update,
                       const DgcOptions& dgc = {});
  Result<Bytes> encode(const Pipeline& pipeline, std::span<const float> update, std::uint64_t seed);

  std::span<const float> memory() const { return memory_; }
  std::span<const float> velocity() const { return velocity_; }  ///< empty without momentum
  void restore(std::vector<float> memory) { memory_ = std::move(memory); }

  std::vector<float> basis;       ///< of a Transform
  std::uint64_t updates = 0;      ///< coded so far, for the warm-up

 private:
  std::vector<float> memory_, velocity_;
};

}  // namespace preceptor::compression
