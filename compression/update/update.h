#pragma once
#include "common/parameter_space.h"
#include "compression/update/error_feedback.h"
#include "compression/update/ring.h"
#include "compression/update/transform.h"

namespace preceptor::compression {

/// The stages of the wire profile `plain`: EDEN, which needs no memory and loses the same whatever
/// the update looks like. bits: 1..4.
std::vector<CodecSettings> plain_profile(int bits = 2);

/// How an update is coded for the wire, as data. Normalisation statistics go their own way:
/// sparsifying or delaying them would leave a model whose statistics do not belong to its weights.
struct UpdateOptions {
  std::vector<CodecSettings> weights = plain_profile();
  std::vector<CodecSettings> statistics{{{"codec", "cast16"}, {"format", "fp16"}},
                                        {{"codec", "zstd"}}};
  bool error_feedback = true;  ///< on weights
  /// The wire profile. plain: weights and statistics below, stage by stage. secure: `ring` alone, whose sums are exact
  /// integers that masks and noise may be added to; the coordinator needs totals only.
  std::string profile = "plain";
  RingOptions ring{};          ///< of the secure profile
  DgcOptions dgc{};            ///< on weights; needs error feedback
  template <class V>
  void visit(V& v) {
    v("profile", profile, OneOf{"plain", "secure"});
    v("weights", weights);
    v("statistics", statistics);
    v("error_feedback", error_feedback);
    v("ring", ring);
    v("dgc", dgc);
  }
};

/// Codes the difference between a trained and a received model, in two sections: weights (all that
/// a gradient trains) and statistics. The first stage of weights may be a Transform. Immutable;
/// shared by threads.
class UpdateCodec {
 public:
  static Result<UpdateCodec> create(const UpdateOptions& options, const ParameterSpace& space);

  /// delta: [space.size()]. `memory` belongs to the node; unused where the options say so.
  /// Error: kInvalid, when a value is not finite; `memory` stays as it was.
  Result<Bytes> encode(std::span<const float> delta, std::uint64_t seed,
                       ErrorFeedback& memory) const;

  /// What each stage of the weights' codec leaves of the update that encode would be given, which
  /// has what `memory` adds; stages behind a transform are measured by what it gave them.
  std::vector<Fidelity> fidelity(std::span<const float> delta, std::uint64_t seed,
                                 const ErrorFeedback& memory) const;

  /// Calls fold(offset, floats) until every float was given exactly once. Offsets are those of the
  /// flat model; what a linear transform left to be added up stands behind it, up to sum_size(),
  /// instead of the weights. A broken byte may show only after some calls: look before you fold.
  using Fold = std::function<Result<void>(std::size_t, std::span<const float>)>;
  Result<void> decode(std::span<const std::byte> bytes, const Fold& fold) const;

  std::size_t model_size() const { return model_size_; }  ///< space.size()
  /// Floats that updates are added up in: space.size(), and a linear transform's.
  std::size_t sum_size() const;
  /// The coordinator, once a round: makes the mean of what was folded, [sum_size()], the update of
  /// the model in its first space.size() floats. `memory` is the coordinator's; only a linear
  /// transform has any. Error: kInvalid.
  Result<void> settle(std::span<float> mean, Transform::Memory& memory) const;

  /// No valid update is longer.
  std::size_t size_bound() const;

 private:
  struct Section {
    std::vector<Pipeline> pipelines;  ///< one a round of warm-up, then the one that stays
    std::unique_ptr<Transform> transform;
    std::string transform_name;
    std::vector<Piece> pieces;  ///< runs of the flat model, in order
    std::size_t size = 0;       ///< floats

    std::size_t coded() const { return transform ? transform->coded_size() : size; }
    bool linear() const { return transform && transform->linear(); }
    /// Which pipeline coded the bytes, and the bytes that are its own.
    Result<const Pipeline*> pipeline_of(std::span<const std::byte>& bytes) const;
    Result<Bytes> encode(std::span<const float> values, std::uint64_t seed, std::uint64_t round,
                         Transform::Memory& memory) const;
    /// Floats of the section in order; not of a linear transform.
    Result<void> decode(std::span<const std::byte> bytes, const Fold& fold) const;
    std::size_t size_bound() const;
  };
  static Result<Section> make_section(const std::vector<CodecSettings>& stages, int warm_up,
                                      const ParameterSpace& space, bool statistics);
  static std::vector<float> gather(const Section& section, std::span<const float> delta);
  /// Gives the section's floats, as they come in order, their offsets in the model.
  static Fold scatter(const Section& section, const Fold& fold);

  bool error_feedback_ = true;
  DgcOptions dgc_;
  std::size_t model_size_ = 0;
  Section weights_, statistics_;
};

}  // namespace preceptor::compression
