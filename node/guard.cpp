#include "node/guard.h"

#include <algorithm>

#include "data/manifest.h"
#include "training/private_training.h"

namespace preceptor::node {

Result<std::unique_ptr<PrivacyGuard>> PrivacyGuard::create(const Plan& plan, const ParameterSpace& student, const data::Dataset& train,
                                                           const std::string& site, const privacy::PrivacyLimits& limits, const PrivacyPlace& place) {
  const auto& dp = plan.privacy.differential_privacy;
  TRY(privacy::check_limits(dp, limits, train.size()));
  const bool statistics = std::ranges::any_of(student.pieces(), [](const Piece& piece) { return is_statistic(piece.role); });
  TRY(check_privacy(dp, plan.update, plan.training, statistics));
  if (!dp.on()) return nullptr;
  // Whoever sees an update by itself sees it with its own share of the noise alone; under masks nobody sees less than the sum
  // of k_min nodes (Party::fewest), of whom all but the colluders are honest.
  const auto& masking = plan.privacy.secure_aggregation;
  const int together = masking.masked() ? masking.k_min - masking.colluders : 1;
  if (dp.distributed() && dp.honest > together && !place.simulated)
    return fail(Code::kRefused,
                "it counts on the noise of {} nodes, and what the coordinator opens is sure to hold that of {}; set privacy.differential_privacy.honest, or "
                "privacy.secure_aggregation",
                dp.honest, together);
  if (place.ledgers.empty()) return fail(Code::kRefused, "this site keeps no ledger, so nothing with a privacy budget may leave it");
  std::unique_ptr<PrivacyGuard> guard(new PrivacyGuard(plan, place));
  TRY(dp.distributed() ? guard->set_distributed(plan, student) : guard->set_local(plan, train.size()));
  guard->budget_ = {limits.epsilon_max, limits.delta(train.size())};
  guard->ledger_.emplace(TRY(privacy::Ledger::open(place.ledgers, data::content_hash(train), site, train.size())));
  TRY(guard->ledger_->affordable(guard->round_, std::uint64_t(plan.rounds), guard->budget_));
  return guard;
}

/// The largest batch that spends no more than the plan's rate, which everybody knows; its own rate is batch / images.
Result<void> PrivacyGuard::set_local(const Plan& plan, std::size_t images) {
  auto& own = training_.record_privacy;
  own.on = true;
  own.clip_norm = options_.clip;
  own.noise_multiplier = options_.noise_multiplier;
  own.clipping = "fixed";
  own.randomness = place_.simulated ? "seeded" : "system";
  const auto promised = privacy::local_round(options_, training_.epochs);
  for (training_.batch = int(std::min<double>(options_.sampling_rate * double(images) + 1e-9, 1e9)); training_.batch > 0; --training_.batch) {
    const auto run = training::private_run(training_, images);
    round_ = {privacy::Noise::kGaussian, run.sampling_rate, run.noise_multiplier, {}, run.steps};
    if (privacy::spends_no_more(round_, promised, plan.rounds, options_.delta)) return {};
  }
  return fail(Code::kRefused, "privacy.differential_privacy.sampling_rate: {} of {} images is less than one image a step; a larger rate, or more images",
              options_.sampling_rate, images);
}

Result<void> PrivacyGuard::set_distributed(const Plan& plan, const ParameterSpace& student) {
  const auto codec = TRY(compression::RingCodec::create(plan.update.ring, student));
  const auto sensitivity = word_sensitivity(options_, codec, plan.training.learning_rate);
  noise_.emplace(TRY(share_of_noise(options_, sensitivity)));
  round_ = noise_->mechanism(sensitivity.l2, sensitivity.l1, sensitivity.dimension, options_.of_records() ? options_.sampling_rate : 1);
  const auto& ring = codec.options();
  const double all = noise_->deviation(std::uint32_t(ring.max_nodes));
  if (ring.noise < all * (1 - 1e-9))
    return fail(Code::kRefused, "update.ring.noise is {:.6g}; {} nodes' noise comes to {:.6g}, for which the ring must have room", ring.noise, ring.max_nodes, all);
  return {};
}

Result<void> PrivacyGuard::debit(std::uint32_t round) { return ledger_->debit({job_, round, round_, 0}, budget_); }

Result<void> PrivacyGuard::add_noise(std::span<std::uint32_t> words, int ring_bits, RandomStream stream) const {
  if (!noise_) return {};
  const auto source = place_.simulated ? privacy::seeded_source(std::move(stream)) : privacy::secret_source();
  return noise_->add(words, ring_bits, *source);
}

}  // namespace preceptor::node
