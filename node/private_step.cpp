#include "node/private_step.h"

#include <torch/torch.h>

#include <algorithm>

#include "training/batch.h"
#include "training/optimizer.h"
#include "training/private_training.h"

namespace preceptor::node {

Result<void> private_step(models::FlatModel& student, training::Objective& objective, const PrivacyGuard& guard, const data::Dataset& train,
                          std::uint64_t seed, const training::Stretch& stretch) {
  auto options = guard.training();
  const auto& dp = guard.options();
  options.record_privacy.on = true;
  options.record_privacy.clip_norm = dp.clip;
  options.record_privacy.noise_multiplier = 0;
  options.record_privacy.clipping = "fixed";
  student.network().train();
  auto step = TRY(training::PrivateStep::create(student, objective, options, dp.batch));
  // Who is in the sample is as secret as the noise.
  auto randomness = guard.simulated() ? training::PrivacyRandomness::seeded(RandomStream(seed, "sample", {std::uint64_t(stretch.first_epoch)}))
                                      : training::PrivacyRandomness::system();
  const auto drawn = TRY(training::poisson_sample(train.size(), dp.sampling_rate, randomness));
  const int view = options.views > 0 ? stretch.first_epoch % options.views : stretch.first_epoch;
  TRY(step.gradients(drawn, [&](std::span<const std::size_t> index) { return training::make_batch(train, index, options.augment, seed, view); }, randomness));
  torch::NoGradGuard no_grad;
  const double rate = options.learning_rate * std::min(1.0, training::schedule_factor(options, stretch.begin));
  student.values().sub_(student.gradients(), rate);
  return {};
}

}  // namespace preceptor::node
