#pragma once
#include "training/gaussian_noise.h"
#include "training/per_sample.h"

namespace preceptor::training {

/// What an accountant needs to know of a call of `train` with options.record_privacy on: so many steps of the Gaussian
/// mechanism, Poisson-sampled, images being added or removed. The plan says all of it but the number of images.
struct PrivateRun {
  double sampling_rate = 0;  ///< of each image in each step
  std::size_t steps = 0;
  double noise_multiplier = 0;
};
PrivateRun private_run(const TrainingOptions& options, std::size_t images);

/// How much of clip_norm an image's gradient gets: what remains is for rounding, of sums in float32 and on the noise's grid.
inline constexpr double kClipShare = 0.999;

/// Clipping and noise of DP-SGD: what happens to gradients in place of their mean.
/// Borrows model and objective; used by one thread.
class PrivateStep {
 public:
  /// `expected`: images in a batch on average, by which sums are divided whatever was drawn.
  /// Error: kInvalid as of PerSampleGradients, and for options that contradict each other or leave privacy undone.
  static Result<PrivateStep> create(models::FlatModel& model, Objective& objective, const TrainingOptions& options, double expected);

  /// Sets model.gradients() to (Σ clipped + noise) / expected, over the drawn images; none are noise alone. Adaptive
  /// clipping then moves clip_norm. Returns the sum of the images' losses, which has no noise.
  /// Errors: kInvalid for a gradient that is not finite; of the randomness.
  Result<double> gradients(std::span<const std::size_t> drawn, const std::function<Batch(std::span<const std::size_t>)>& batch_of,
                           PrivacyRandomness& randomness);

  double clip_norm() const { return clip_norm_; }
  bool one_by_one() const { return samples_.one_by_one(); }

 private:
  PrivateStep(models::FlatModel& model, PerSampleGradients samples, const PrivateTrainingOptions& options, double expected)
      : model_(&model), samples_(std::move(samples)), options_(options), expected_(expected), clip_norm_(options.clip_norm) {}
  Result<void> add_noise(PrivacyRandomness& randomness);
  Result<void> adapt(double excess, PrivacyRandomness& randomness);
  double count_noise() const { return options_.count_noise > 0 ? options_.count_noise : expected_ / 20; }

  models::FlatModel* model_;
  PerSampleGradients samples_;
  PrivateTrainingOptions options_;
  double expected_, clip_norm_;
};

/// `train` with options.record_privacy on: DP-SGD. An epoch is as many steps as draw each image once on average; a step takes
/// one view of each drawn image. Momentum, decay, schedule and hooks act on noisy gradients, which costs no privacy.
/// With randomness: system no two runs are alike; with seeded, results are a function of the seed as in plain training.
/// The learned clip norm starts anew in each call.
Result<Trained> train_privately(models::FlatModel& model, const data::Dataset& dataset, const TrainingOptions& options,
                                Objective& objective, std::uint64_t seed, const Stretch& stretch, const EpochCallback& after_epoch,
                                StepHook* hook);

}  // namespace preceptor::training
