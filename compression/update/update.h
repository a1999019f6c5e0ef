#pragma once
#include "common/parameter_space.h"
#include "compression/update/error_feedback.h"
#include "compression/update/ring.h"

namespace preceptor::compression {

/// How an update is coded for the wire, as data. Normalisation statistics go their own way:
/// sparsifying or delaying them would leave a model whose statistics do not belong to its weights.
struct UpdateOptions {
  std::vector<CodecSettings> weights{{{"codec", "quantize"}, {"bits", "4"}}, {{"codec", "zstd"}}};
  std::vector<CodecSettings> statistics{{{"codec", "cast16"}, {"format", "fp16"}},
                                        {{"codec", "zstd"}}};
  bool error_feedback = true;  ///< on weights
  /// The wire profile. custom: the codecs above, stage by stage. secure: `ring` alone, whose sums are exact
  /// integers that masks and noise may be added to; the coordinator needs totals only.
  std::string profile = "custom";
  RingOptions ring{};
  template <class V>
  void visit(V& v) {
    v("profile", profile, OneOf{"custom", "secure"});
    v("weights", weights);
    v("statistics", statistics);
    v("error_feedback", error_feedback);
    v("ring", ring);
  }
};

/// Codes the difference between a trained and a received model, in two sections: weights (all that
/// a gradient trains) and statistics. Immutable; shared by threads.
class UpdateCodec {
 public:
  static Result<UpdateCodec> create(const UpdateOptions& options, const ParameterSpace& space);

  /// delta: [space.size()]. `memory` belongs to the node; unused where the options say so.
  /// Error: kInvalid, when a value is not finite; `memory` stays as it was.
  Result<Bytes> encode(std::span<const float> delta, std::uint64_t seed,
                       ErrorFeedback& memory) const;

  /// Calls fold(offset in the flat model, floats) until every float was given exactly once. A
  /// broken byte may show only after some calls: look before you fold.
  using Fold = std::function<Result<void>(std::size_t, std::span<const float>)>;
  Result<void> decode(std::span<const std::byte> bytes, const Fold& fold) const;

  /// No valid update is longer.
  std::size_t size_bound() const;

 private:
  struct Section {
    Pipeline pipeline;
    std::vector<Piece> pieces;  ///< runs of the flat model, in order
    std::size_t size = 0;       ///< floats
  };
  static Section make_section(Pipeline pipeline, const ParameterSpace& space, bool statistics);
  static std::vector<float> gather(const Section& section, std::span<const float> delta);
  static Result<void> scatter(const Section& section, std::span<const std::byte> bytes,
                              const Fold& fold);

  bool error_feedback_ = true;
  Section weights_, statistics_;
};

}  // namespace preceptor::compression
