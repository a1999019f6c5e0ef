#include "training/training.h"

#include <torch/torch.h>

#include <cmath>
#include <numeric>

#include "models/adaptable.h"
#include "training/optimizer.h"
#include "training/private_training.h"

namespace preceptor::training {
namespace {

class CrossEntropy : public Objective {
 public:
  CrossEntropy(double smoothing, at::Tensor weights) : smoothing_(smoothing), weights_(std::move(weights)) {}
  at::Tensor loss(const Batch& batch, const at::Tensor& logits) override {
    auto options = torch::nn::functional::CrossEntropyFuncOptions().label_smoothing(smoothing_);
    if (weights_.defined()) options.weight(weights_.to(logits.device()));
    const auto labels = batch.labels.to(logits.device());
    if (two_headed(logits))  // the mean of both heads' losses
      return torch::nn::functional::cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(2), options);
    return torch::nn::functional::cross_entropy(logits, labels, options);
  }

 private:
  double smoothing_;
  at::Tensor weights_;
};

class DiceCrossEntropy : public CrossEntropy {
 public:
  using CrossEntropy::CrossEntropy;
  at::Tensor loss(const Batch& batch, const at::Tensor& logits) override {
    const auto truth = torch::one_hot(batch.labels.to(logits.device()), logits.size(1)).permute({0, 3, 1, 2}).to(logits.dtype());
    const auto told = logits.softmax(1);
    const auto overlap = (told * truth).sum({0, 2, 3}), total = (told + truth).sum({0, 2, 3});
    const auto dice = (2 * overlap + kSmooth) / (total + kSmooth);
    return CrossEntropy::loss(batch, logits) + 1 - dice.slice(0, 1).mean();
  }

 private:
  static constexpr double kSmooth = 1;  ///< pixels: a class that is nowhere and is told nowhere loses nothing
};

at::Tensor class_weights(const TrainingOptions& options, const data::Dataset& dataset) {
  if (options.class_weights != "balanced") return {};
  const auto counts = dataset.class_counts();
  auto weights = torch::ones({std::int64_t(counts.size())});
  const double all = std::accumulate(counts.begin(), counts.end(), 0.0);
  for (std::size_t c = 0; c < counts.size(); ++c)
    weights[std::int64_t(c)] = all / (double(counts.size()) * double(std::max<std::size_t>(counts[c], 1)));
  return weights;
}

/// From here on batch norms use the statistics that they have, and layers that round the ranges: what the network will
/// compute with after training (Jacob 2017, arXiv:1712.05877, 3.1).
void freeze_statistics(models::Model& network) {
  for (const auto& module : network.modules()) {
    const bool norm = module->as<torch::nn::BatchNorm1d>() || module->as<torch::nn::BatchNorm2d>();
    if (norm || dynamic_cast<models::Adaptable*>(module.get())) module->eval();
  }
}

/// Consecutive pieces of `order`; a last piece of one image joins the one before (batch norm needs two).
std::vector<std::span<const std::size_t>> batches(std::span<const std::size_t> order, std::size_t size) {
  std::vector<std::span<const std::size_t>> pieces;
  while (!order.empty()) {
    auto count = std::min(size, order.size());
    if (order.size() - count == 1) ++count;
    pieces.push_back(order.first(count));
    order = order.subspan(count);
  }
  return pieces;
}

}  // namespace

std::unique_ptr<Objective> make_cross_entropy(const TrainingOptions& options, const data::Dataset& dataset) {
  return std::make_unique<CrossEntropy>(options.label_smoothing, class_weights(options, dataset));
}

std::unique_ptr<Objective> make_dice_cross_entropy(const TrainingOptions& options, const data::Dataset& dataset) {
  return std::make_unique<DiceCrossEntropy>(options.label_smoothing, class_weights(options, dataset));
}

std::unique_ptr<Objective> make_supervised(const TrainingOptions& options, const data::Dataset& dataset) {
  return dataset.segmentation ? make_dice_cross_entropy(options, dataset) : make_cross_entropy(options, dataset);
}

Result<void> check_task(const models::ModelOptions& model, const data::Dataset& dataset) {
  const auto* architecture = TRY(models::zoo().find(model.name));
  const std::string wanted = dataset.segmentation ? "segmentation" : "classification";
  if (architecture->task != wanted)
    return fail(Code::kInvalid, "{} is for {}, the data are for {}; `preceptor models --task {}` lists what fits", model.name,
                architecture->task, wanted, wanted);
  return {};
}

Result<models::ModelSpec> spec_for(const models::ModelOptions& model, const data::Dataset& dataset) {
  TRY(check_task(model, dataset));
  return models::ModelSpec{model, {int(dataset.classes.size()), dataset.channels, dataset.height}};
}

void use_threads(int threads) {
  if (at::get_num_threads() != threads) at::set_num_threads(threads);
}

Result<Trained> train(models::FlatModel& model, const data::Dataset& dataset, const TrainingOptions& options,
                      Objective& objective, std::uint64_t seed, const Stretch& stretch, const EpochCallback& after_epoch,
                      StepHook* hook) {
  if (dataset.size() < 2) return fail(Code::kInvalid, "training needs at least two images; there are {}", dataset.size());
  use_threads(options.threads);
  if (options.record_privacy.on) return train_privately(model, dataset, options, objective, seed, stretch, after_epoch, hook);
  model.network().train();
  const auto optimizer = make_optimizer(options, model.space(), model.values());
  const auto steps_an_epoch = double(batches(std::vector<std::size_t>(dataset.size()), std::size_t(options.batch)).size());
  const double all_steps = steps_an_epoch * options.epochs;
  const auto progress_at = [&](double step) { return stretch.begin + (stretch.end - stretch.begin) * step / all_steps; };
  Trained result;
  for (int e = 0; e < options.epochs; ++e) {
    const int epoch = stretch.first_epoch + e;
    const int view = options.views > 0 ? epoch % options.views : epoch;
    const auto order = RandomStream(seed, "order", {std::uint64_t(epoch)}).permutation(dataset.size());
    if (progress_at(double(result.steps)) >= options.freeze_statistics) freeze_statistics(model.network());
    double loss_sum = 0;
    for (const auto piece : batches(order, std::size_t(options.batch))) {
      auto batch = make_batch(dataset, piece, options.augment, seed, view);
      model.gradients().zero_();
      const auto [logits, features] = models::with_features([&] { return model.forward(batch.images); });
      const auto loss = objective.loss_with(batch, logits, features);
      loss.backward();
      const double value = loss.item<double>();
      if (!std::isfinite(value))
        return fail(Code::kInvalid, "the loss is no longer finite in epoch {}; lower learning_rate (now {})", epoch + 1, options.learning_rate);
      torch::NoGradGuard no_grad;
      clip(model.gradients(), options.clip_norm);
      const double progress = progress_at(double(result.steps));
      const double rate = options.learning_rate * schedule_factor(options, progress);
      if (hook) hook->before_step(model, progress);
      optimizer->step(model.values(), model.gradients(), rate);
      objective.step(rate);
      loss_sum += value * double(piece.size());
      ++result.steps;
      if (hook) hook->after_step(model, progress_at(double(result.steps)));
    }
    result.loss = loss_sum / double(dataset.size());
    if (after_epoch && !after_epoch(epoch, result.loss)) break;
  }
  return result;
}

namespace {

/// Images 0 … N−1 in pieces.
void in_pieces(std::size_t images, int batch, const std::function<void(std::span<const std::size_t>)>& visit) {
  std::vector<std::size_t> order(images);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t at = 0; at < order.size(); at += std::size_t(batch))
    visit(std::span(order).subspan(at, std::min(std::size_t(batch), order.size() - at)));
}

}  // namespace

at::Tensor logits_of(const Network& network, const data::Dataset& dataset, const AugmentOptions& augment, std::uint64_t seed,
                     int view, int batch) {
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> parts;
  in_pieces(dataset.size(), batch, [&](std::span<const std::size_t> piece) {
    const auto images = view < 0 ? make_batch(dataset, piece).images : make_batch(dataset, piece, augment, seed, view).images;
    parts.push_back(network(images).to(torch::kCPU));
  });
  return parts.empty() ? torch::zeros({0, std::int64_t(dataset.classes.size())}) : torch::cat(parts);
}

void for_each_batch(const Network& network, const data::Dataset& dataset, int batch,
                    const std::function<void(std::span<const std::size_t> index, const at::Tensor& logits)>& visit) {
  torch::NoGradGuard no_grad;
  in_pieces(dataset.size(), batch, [&](std::span<const std::size_t> piece) {
    visit(piece, network(make_batch(dataset, piece).images).to(torch::kCPU));
  });
}

}  // namespace preceptor::training
