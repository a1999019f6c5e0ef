#pragma once
#include "compression/update/update.h"
#include "privacy/differential_privacy/ring_noise.h"
#include "privacy/differential_privacy/differential_privacy.h"
#include "privacy/secure_aggregation/options.h"
#include "training/options.h"

namespace preceptor {

/// What a plan says of privacy. Node and coordinator judge it by the same rules.
struct PrivacyOptions {
  privacy::DifferentialPrivacyOptions differential_privacy;
  privacy::SecureAggregationOptions secure_aggregation{};
  template <class V>
  void visit(V& v) {
    v("differential_privacy", differential_privacy);
    v("secure_aggregation", secure_aggregation);
  }
};

/// What would let something of an image out without noise. `statistics`: the student has normalisation statistics.
/// kRefused, naming the key and the way out.
inline Result<void> check_privacy(const privacy::DifferentialPrivacyOptions& dp, const compression::UpdateOptions& update,
                                  const training::TrainingOptions& training, bool statistics) {
  if (training.record_privacy.on) return fail(Code::kRefused, "training.private.on has no ledger; set privacy.differential_privacy.mode: record-local instead");
  if (!dp.on()) return {};
  const bool secure = update.profile == "secure";
  const auto& ring = update.ring;
  if (dp.of_records() && training.class_weights != "none")
    return fail(Code::kRefused, "training.class_weights: {} tells of all labels without noise; set it to none", training.class_weights);
  if (dp.of_records() && statistics)
    return fail(Code::kRefused, "the student's batch norms have statistics of images, which get no noise; set student.model.normalisation: group");
  if (secure && ring.histograms > 0) return fail(Code::kRefused, "update.ring.histograms: score histograms get no noise; 0 is allowed");
  if (secure && ring.fidelity) return fail(Code::kRefused, "update.ring.fidelity: what the codec leaves of an update gets no noise; set it to false");
  if (!dp.distributed()) return {};
  if (!secure) return fail(Code::kRefused, "privacy.differential_privacy.mode: {} adds noise to integers; set update.profile: secure", dp.mode);
  if (ring.weights != "none") return fail(Code::kRefused, "update.ring.weights: {} tells of a hospital's images without noise; set it to none", ring.weights);
  if (statistics && ring.statistics != "keep")
    return fail(Code::kRefused, "update.ring.statistics: {} sends batch norms' statistics without noise; set it to keep, or student.model.normalisation: group", ring.statistics);
  if (dp.mode == "record-distributed" && ring.error_feedback)
    return fail(Code::kRefused, "update.ring.error_feedback carries an image from round to round, beyond its clip; set it to false");
  return {};
}

/// How far one image, or one hospital, can move the words of a round, in steps of the quantiser.
struct WordSensitivity {
  double l2 = 0, l1 = 0, dimension = 0;
};
inline WordSensitivity word_sensitivity(const privacy::DifferentialPrivacyOptions& dp, const compression::RingCodec& codec, double learning_rate) {
  const double d = double(codec.rotated());
  // An image moves a sum of clipped gradients by its clip; whatever the coins of rounding, each word by a step more.
  const double l2 = dp.of_records() ? dp.clip * learning_rate / dp.batch * codec.scale() + std::sqrt(d) : codec.norm_bound();
  return {l2, privacy::rounded_l1_bound(l2, d), d};
}

/// A node's share of the noise: multiplier · sensitivity, by the fewest honest nodes together.
inline Result<privacy::RingNoise> share_of_noise(const privacy::DifferentialPrivacyOptions& dp, const WordSensitivity& sensitivity) {
  const auto kind = dp.noise == "skellam" ? privacy::Noise::kSkellam : privacy::Noise::kDiscreteGaussian;
  return privacy::RingNoise::create(kind, dp.noise_multiplier * sensitivity.l2, std::uint32_t(dp.honest));
}

}  // namespace preceptor
