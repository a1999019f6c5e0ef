#include "training/private_training.h"

#include <torch/torch.h>

#include <cmath>

#include "training/optimizer.h"

namespace preceptor::training {
namespace {

/// Batches are filled up to multiples of this: convolutions prepare themselves for each batch size anew.
constexpr std::size_t kPadTo = 8;

/// The noise on gradients when part of the budget goes to counts, whose terms are ±½ (Andrew 2021, theorem 1).
double gradient_noise(double multiplier, double count_noise) {
  return 1 / std::sqrt(1 / (multiplier * multiplier) - 1 / (4 * count_noise * count_noise));
}

Result<void> check(const TrainingOptions& options, double count_noise) {
  const auto& own = options.record_privacy;
  if (options.class_weights != "none")
    return fail(Code::kInvalid, "private training: class_weights: {} looks at all labels without noise; set it to none", options.class_weights);
  if (own.clipping == "adaptive" && own.noise_multiplier >= 2 * count_noise)
    return fail(Code::kInvalid, "private training: adaptive clipping needs count_noise above half the noise_multiplier, {}; it is {}",
                own.noise_multiplier / 2, count_noise);
  return {};
}

}  // namespace

PrivateRun private_run(const TrainingOptions& options, std::size_t images) {
  const double rate = images > 0 ? std::min(1.0, double(options.batch) / double(images)) : 1;
  return {rate, std::size_t(options.epochs) * std::max<std::size_t>(1, std::size_t(std::llround(1 / rate))), options.record_privacy.noise_multiplier};
}

Result<PrivateStep> PrivateStep::create(models::FlatModel& model, Objective& objective, const TrainingOptions& options, double expected) {
  auto samples = TRY(PerSampleGradients::create(model, objective));
  PrivateStep step(model, std::move(samples), options.record_privacy, expected);
  TRY(check(options, step.count_noise()));
  return step;
}

Result<double> PrivateStep::gradients(std::span<const std::size_t> drawn, const std::function<Batch(std::span<const std::size_t>)>& batch_of,
                                      PrivacyRandomness& randomness) {
  model_->gradients().zero_();
  double loss = 0, excess = 0;  // Σ (norm within the bound) − ½
  while (!drawn.empty()) {
    const auto count = std::min(drawn.size(), std::size_t(options_.microbatch));
    std::vector<std::size_t> piece(drawn.begin(), drawn.begin() + std::ptrdiff_t(count));
    piece.resize((count + kPadTo - 1) / kPadTo * kPadTo, piece.front());
    drawn = drawn.subspan(count);
    const auto found = samples_.add_clipped(batch_of(piece), std::int64_t(count), kClipShare * clip_norm_);
    const auto norms = found.norms.narrow(0, 0, std::int64_t(count)).to(torch::kFloat64);
    loss += found.losses.narrow(0, 0, std::int64_t(count)).sum().item<double>();
    excess += (norms <= clip_norm_).sum().item<double>() - double(count) / 2;
    if (!std::isfinite(norms.sum().item<double>()) || !std::isfinite(loss))
      return fail(Code::kInvalid, "private training: the gradient of an image is not finite; lower learning_rate");
  }
  TRY(add_noise(randomness));
  model_->gradients().div_(expected_);
  if (options_.clipping == "adaptive") TRY(adapt(excess, randomness));
  return loss;
}

Result<void> PrivateStep::add_noise(PrivacyRandomness& randomness) {
  const bool adaptive = options_.clipping == "adaptive";
  const double multiplier = options_.noise_multiplier;
  const double deviation = clip_norm_ * (adaptive && multiplier > 0 ? gradient_noise(multiplier, count_noise()) : multiplier);
  auto& sum = model_->gradients();
  auto host = sum.to(torch::kCPU);
  for (const auto& piece : model_->space().pieces()) {  // statistics and what is frozen have no gradient
    if (is_statistic(piece.role) || is_frozen(piece.role)) continue;
    TRY(add_gaussian({host.data_ptr<float>() + piece.offset, piece.size}, deviation, randomness));
  }
  if (!host.is_same(sum)) sum.copy_(host);
  return {};
}

Result<void> PrivateStep::adapt(double excess, PrivacyRandomness& randomness) {
  float count = float(excess);
  if (options_.noise_multiplier > 0) TRY(add_gaussian({&count, 1}, count_noise(), randomness));
  const double share = 0.5 + double(count) / expected_;
  clip_norm_ *= std::exp(-options_.clip_rate * (share - options_.target_quantile));
  return {};
}

Result<Trained> train_privately(models::FlatModel& model, const data::Dataset& dataset, const TrainingOptions& options, Objective& objective,
                                std::uint64_t seed, const Stretch& stretch, const EpochCallback& after_epoch, StepHook* hook) {
  model.network().train();
  const auto run = private_run(options, dataset.size());
  auto step = TRY(PrivateStep::create(model, objective, options, run.sampling_rate * double(dataset.size())));
  const auto optimizer = make_optimizer(options, model.space(), model.values());
  const auto progress_at = [&](std::size_t done) { return stretch.begin + (stretch.end - stretch.begin) * double(done) / double(run.steps); };
  const auto steps_an_epoch = run.steps / std::size_t(std::max(1, options.epochs));
  const bool secret = options.record_privacy.randomness == "system";
  Trained result;
  for (int e = 0; e < options.epochs; ++e) {
    const int epoch = stretch.first_epoch + e;
    const int view = options.views > 0 ? epoch % options.views : epoch;
    auto randomness = secret ? PrivacyRandomness::system() : PrivacyRandomness::seeded(RandomStream(seed, "private", {std::uint64_t(epoch)}));
    double loss_sum = 0;
    std::size_t seen = 0;
    for (std::size_t s = 0; s < steps_an_epoch; ++s) {
      const auto drawn = TRY(poisson_sample(dataset.size(), run.sampling_rate, randomness));
      loss_sum += TRY(step.gradients(drawn, [&](std::span<const std::size_t> index) {
        return make_batch(dataset, index, options.augment, seed, view);
      }, randomness));
      seen += drawn.size();
      torch::NoGradGuard no_grad;
      const double progress = progress_at(result.steps);
      const double rate = options.learning_rate * schedule_factor(options, progress);
      if (hook) hook->before_step(model, progress);
      optimizer->step(model.values(), model.gradients(), rate);
      ++result.steps;
      if (hook) hook->after_step(model, progress_at(result.steps));
    }
    if (after_epoch && !after_epoch(epoch, seen > 0 ? loss_sum / double(seen) : 0)) break;
  }
  return result;
}

}  // namespace preceptor::training
