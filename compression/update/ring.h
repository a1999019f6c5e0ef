#pragma once
#include "common/options.h"
#include "common/parameter_space.h"
#include "compression/update/error_feedback.h"
#include "compression/update/hadamard.h"
#include "compression/update/ring_transform.h"
#include "compression/update/totals.h"

namespace preceptor::compression {

/// The secure profile: an update as integers modulo 2^r whose sum is all that the coordinator
/// needs. Every key is shared by all nodes of a job; none may depend on anybody's data.
struct RingOptions {
  int bits = 8;        ///< b of the quantiser: words of one node are within ±Q, Q = 2^(b-1) - 1
  int ring_bits = 0;   ///< r, on the wire for each word; 0: the smallest that max_nodes cannot overflow
  int max_nodes = 0;   ///< largest cohort; 0: the coordinator fills it in from the federation's options
  double clip = 1;     ///< c: L2 norm to which a node's update is cut
  double range = 4;    ///< of the quantiser, in c/√d: coordinates beyond are clamped
  int chunk = 8192;    ///< of the rotation
  double keep = 1;     ///< share of coordinates that travels, drawn anew each round by a shared seed
  bool error_feedback = false;  ///< nodes keep what was lost for the next round; else keep < 1 is unbiased
  std::string weights = "capped";     ///< none: all sites count the same; capped: by training images
  std::uint64_t weight_cap = 1000;    ///< images above which a site counts no more; its resolution is bits
  std::string statistics = "sum";     ///< of normalisation: sum (fixed point, exact) or keep (do not travel)
  int histograms = 0;  ///< of scores, among the totals; the coordinator fills it in: none for segmentation
  bool fidelity = true;  ///< the stages' fidelity among the totals; the coordinator turns it off where updates are private
  double noise = 0;  ///< standard deviation of all nodes' noise together, in steps of the quantiser
  double beta = 0;   ///< > 0: rounding is repeated until the norm is within rounded_norm_bound: 1/(1-β) tries
  template <class V>
  void visit(V& v) {
    v("bits", bits, Range{2, 20});
    v("ring_bits", ring_bits, Range{0, 32});
    v("max_nodes", max_nodes, Range{0, 1 << 20});
    v("clip", clip, Range{1e-6, 1e6});
    v("range", range, Range{1, 16});
    v("chunk", chunk, Range{64, double(kMaxHadamard)});
    v("keep", keep, Range{0.001, 1});
    v("error_feedback", error_feedback);
    v("weights", weights, OneOf{"none", "capped"});
    v("weight_cap", weight_cap, Range{1, 1 << 24});
    v("statistics", statistics, OneOf{"sum", "keep"});
    v("histograms", histograms, Range{0, 1000});
    v("fidelity", fidelity);
    v("noise", noise, Range{0, 1e9});
    v("beta", beta, Range{0, 0.99});
  }
};

/// r: as given, or the smallest for max_nodes. Error: kInvalid, with the numbers, unless
/// 2^(r-1) > max_nodes·Q + 6·noise (a site's weight scales by at most 1). Needs no model.
Result<int> ring_bits(const RingOptions& options);

/// L2 norm that stochastic rounding leaves a vector [d] of norm c with, all in steps of the
/// quantiser: at most c + √d, and below the second term except with probability β (Kairouz 2021,
/// arXiv:2102.06387, eq. 1). beta = 0: the first alone.
double rounded_norm_bound(double c, std::size_t d, double beta);

/// What leaves a node. THE SEAM: noise (integers, added modulo 2^r) and masks (words modulo 2^r,
/// totals modulo 2^64) belong here, after RingCodec::encode and before RingCodec::pack; what comes
/// off a sum belongs between RingSum::add and RingSum::close.
struct RingUpdate {
  std::vector<std::uint32_t> words;   ///< [RingCodec::words()], each below 2^r
  std::vector<std::uint64_t> totals;  ///< [RingCodec::totals()], Totals::encode
};

/// What all nodes of a round share: rotation and coordinates are drawn from it.
struct RingRound {
  std::uint64_t seed = 1;  ///< the plan's
  std::uint32_t round = 1;
};

/// flatten → clip to c → weight ≤ 1 → random-k → rotate → scale γ = Q√d/(range·c) → round
/// stochastically → clamp to ±Q → Z_2^r (Kairouz 2021, arXiv:2102.06387). Linear: words of several
/// nodes add up to the words of their sum, exactly, in any order. Behind the weights' words stand
/// those of normalisation statistics, which neither clip nor rotation may touch: each is a 32-bit
/// fixed-point number (clamped to ±1024) as balanced digits of base 2Q + 1, so that the same bound
/// on overflow holds for every word. Wire: words packed to r bits, then totals as u64: size()
/// bytes, always. Immutable; shared by threads.
class RingCodec {
 public:
  static constexpr double kStatisticsClip = 1024;

  /// Error: kInvalid, as of ring_bits, for a model without weights, or for noise where statistics
  /// would travel.
  static Result<RingCodec> create(const RingOptions& options, const ParameterSpace& space);

  const RingOptions& options() const { return options_; }  ///< with ring_bits filled in
  std::size_t words() const { return transform_.size() + statistics_.size * digits_; }
  std::size_t rotated() const { return transform_.size(); }  ///< words that are not statistics
  std::size_t totals() const { return layout().words(); }
  Totals::Layout layout() const { return {stages().size(), histograms()}; }
  /// Of the fidelity meter: clip, then random-k where few coordinates travel, then round.
  std::vector<std::string> stages() const;
  std::size_t histograms() const { return std::size_t(options_.histograms); }
  std::size_t packed_words() const;  ///< bytes of packed words
  std::size_t size() const { return packed_words() + 8 * totals(); }  ///< bytes of an update
  std::uint32_t limit() const { return limit_; }                       ///< Q
  double scale() const { return scale_; }                              ///< γ, 1/step
  /// L2 norm of rotated words, in steps, that no sum of honest nodes of this weight together exceeds: each is clipped,
  /// then weighted, then rounded. Noise may add to it, but for one sum in e^50.
  double norm_bound(std::size_t nodes, std::uint64_t weight) const;
  /// The same of one node of full weight, without noise.
  double norm_bound() const { return norm_bound_; }
  /// Whether the mean of statistics is within what nodes clamp theirs to. sum: the words behind the rotated ones.
  bool statistics_in_range(std::span<const std::uint32_t> sum, std::uint64_t weight) const;
  /// What a site of so many images adds to Totals::weight; 1 … max_weight().
  std::uint64_t weight_of(std::uint64_t samples) const;
  std::uint64_t max_weight() const;

  /// delta: [space.size()]. `rounding` is the node's own, never shared. memory: of error feedback;
  /// unused where the options say so. fidelity: filled with each stage's, unless null. Error:
  /// kInvalid, when a value is not finite.
  Result<std::vector<std::uint32_t>> encode(std::span<const float> delta, std::uint64_t samples,
                                            const RingRound& round, RandomStream rounding,
                                            ErrorFeedback& memory,
                                            std::vector<Fidelity>* fidelity = nullptr) const;
  Bytes pack(const RingUpdate& update) const;

  /// The mean update [space.size()], zero where nothing travels, from the sum of words modulo 2^r
  /// and the sum of weights > 0.
  std::vector<float> decode(std::span<const std::uint32_t> sum, std::uint64_t weight,
                            const RingRound& round) const;
  /// A word of a sum as the signed integer that it stands for.
  std::int32_t centred(std::uint32_t word) const {
    const int unused = 32 - options_.ring_bits;
    return std::int32_t(word << unused) >> unused;
  }

 private:
  struct Section {
    std::vector<Piece> pieces;
    std::size_t size = 0;  ///< floats
  };
  RingCodec(const RingOptions& options, const ParameterSpace& space);
  /// Indices of the weights that travel in a round, ascending; empty: all of them.
  std::vector<std::uint32_t> kept(const RingRound& round) const;
  void round_weights(std::span<const float> values, const RingRound& round, RandomStream& random,
                     std::span<std::uint32_t> words) const;
  void encode_statistics(std::span<const float> values, double share, RandomStream& random,
                         std::span<std::uint32_t> words) const;
  /// What travels of `values`, back in its place, and made unbiased where decoding does that.
  std::vector<float> spread(std::span<const float> sent, const RingRound& round, double factor) const;
  std::vector<float> decode_statistics(std::span<const std::uint32_t> sum, double share) const;
  std::vector<float> decode_weights(std::span<const std::uint32_t> sum, double share,
                                    const RingRound& round) const;
  std::uint32_t ring(std::int64_t value) const {
    return std::uint32_t(value) & (~std::uint32_t{0} >> (32 - options_.ring_bits));
  }

  RingOptions options_;
  Section weights_, statistics_;
  std::size_t space_size_ = 0, floats_ = 0, digits_ = 0;
  std::uint32_t limit_ = 1;
  double scale_ = 1, norm_bound_ = 0;
  RingTransform transform_;
};

}  // namespace preceptor::compression
