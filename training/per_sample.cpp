#include "training/per_sample.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/torch.h>

#include <cmath>

#include "common/log.h"
#include "models/adaptable.h"
#include "training/layer_gradients.h"

namespace preceptor::training {
namespace {

constexpr std::int64_t kChecked = 2;    ///< images of each batch size that are done both ways
constexpr double kTolerance = 5e-4;     ///< relative, between the two: half of what kClipShare leaves; below 1e-5 is usual

/// Factors for the first `count` of the norms; 0 for padding, and where a gradient is zero.
at::Tensor factors_for(const at::Tensor& norms, std::int64_t count, double bound) {
  auto factors = (bound / norms.clamp_min(1e-30)).clamp_max(1);
  factors.narrow(0, count, factors.size(0) - count).zero_();
  return factors;
}

}  // namespace

Batch one_of(const Batch& batch, std::int64_t i) {
  return {batch.images.narrow(0, i, 1), batch.labels.narrow(0, i, 1), batch.index.subspan(std::size_t(i), 1), batch.view};
}

Result<PerSampleGradients> PerSampleGradients::create(models::FlatModel& model, Objective& objective) {
  for (const auto& item : model.network().named_modules("", /*include_self=*/false)) {
    const auto& module = *item.value();
    const auto* norm1 = module.as<torch::nn::BatchNorm1d>();
    const auto* norm2 = module.as<torch::nn::BatchNorm2d>();
    if (norm1 || (norm2 && norm2->options.track_running_stats()))
      return fail(Code::kInvalid, "private training: {} has batch norm ('{}'), in which each image's gradient depends on the others; "
                  "build it with model.normalisation: group", model.spec().model.name, item.key());
    const auto* layer = dynamic_cast<const models::Adaptable*>(&module);
    if (layer && layer->rounds())
      return fail(Code::kInvalid, "private training: layer '{}' rounds to ranges that it measures on the images, without noise; "
                  "quantise the trained model instead", item.key());
  }
  if (!objective.by_image())
    return fail(Code::kInvalid, "private training: its loss compares images or learns itself, so one image's share has no bound; "
                "take no feature loss and no mutual learning");
  return PerSampleGradients(model, objective);
}

at::Tensor PerSampleGradients::losses(const Batch& batch) {
  const auto [logits, features] = models::with_features([&] { return model_->forward(batch.images); });
  const auto each_logits = logits.split(1);
  std::vector<std::vector<at::Tensor>> maps;
  for (const auto& map : features.maps) maps.push_back(map.split(1));
  const auto pooled = features.pooled.defined() ? features.pooled.split(1) : std::vector<at::Tensor>(each_logits.size());
  std::vector<at::Tensor> losses;
  for (std::size_t i = 0; i < each_logits.size(); ++i) {
    models::Features own{{}, pooled[i]};
    for (const auto& map : maps) own.maps.push_back(map[i]);
    losses.push_back(objective_->loss_with(one_of(batch, std::int64_t(i)), each_logits[i], own));
  }
  return torch::stack(losses);
}

void PerSampleGradients::give_up(const std::string& reason) {
  if (!one_by_one_) spdlog::warn("private training of {} goes image by image, which is slower: {}", model_->spec().model.name, reason);
  one_by_one_ = true;
}

SampleNorms PerSampleGradients::add_clipped(const Batch& batch, std::int64_t count, double bound) {
  if (one_by_one_) return add_clipped_one_by_one(batch, count, bound);
  const auto images = batch.images.size(0);
  std::vector<at::Tensor> parameters;
  for (const auto& parameter : model_->network().parameters())
    if (parameter.requires_grad()) parameters.push_back(parameter);
  at::Tensor each_loss;
  std::vector<LayerCall> calls;
  {
    const LayerRecorder recorder(parameters, images);
    each_loss = losses(batch);
    if (recorder.unknown()) give_up("no rule for " + *recorder.unknown());
    calls = recorder.calls();
  }
  if (one_by_one_) return add_clipped_one_by_one(batch, count, bound);
  torch::autograd::edge_list outputs;
  for (const auto& call : calls) outputs.push_back(call.output);
  auto& engine = torch::autograd::Engine::get_default_engine();
  auto gradients = engine.execute({torch::autograd::impl::gradient_edge(each_loss)}, {torch::ones_like(each_loss)}, /*keep_graph=*/false,
                                  /*create_graph=*/false, /*accumulate_grad=*/false, outputs);
  const torch::NoGradGuard no_grad;
  auto squares = torch::zeros({images}, each_loss.options().dtype(torch::kFloat64).requires_grad(false));
  std::vector<ParameterGradients> parts;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (!gradients[i].defined()) continue;  // did not bear on the loss
    for (auto& part : gradients_of(calls[i], gradients[i])) {
      part.add_squares(squares);
      parts.push_back(std::move(part));
    }
    calls[i].arguments.clear();
    gradients[i].reset();
  }
  const SampleNorms result{squares.sqrt().to(torch::kFloat32), each_loss.detach()};
  check(batch, result.norms);
  if (one_by_one_) return add_clipped_one_by_one(batch, count, bound);
  const auto factors = factors_for(result.norms, count, bound);
  for (const auto& part : parts) part.add_sum(factors);
  return result;
}

/// Of image i with its own shapes, and so its own rounding, but among other images: what differs from the norm it has in its
/// batch is what those bear on it, or a rule's mistake. An image alone would be rounded in another way, which turns some ReLU
/// that is almost at 0; each changes the gradient by parts in a thousand.
double PerSampleGradients::norm_among_others(const Batch& batch, std::int64_t i) {
  auto images = -batch.images;
  images.select(0, i).neg_();
  const torch::AutoGradMode on(true);
  model_->gradients().zero_();
  losses({images, batch.labels, batch.index, batch.view})[i].backward();
  return model_->gradients().norm(2, torch::kFloat64).item<double>();
}

void PerSampleGradients::check(const Batch& batch, const at::Tensor& norms) {
  if (!checked_.insert(batch.images.size(0)).second) return;
  const auto kept = model_->gradients().clone();
  double worst = 0;
  for (std::int64_t i = 0; i < std::min(kChecked, batch.images.size(0)) && std::isfinite(worst); ++i) {
    const double expected = norm_among_others(batch, i), off = std::abs(norms[i].item<double>() - expected) / std::max(expected, 1e-12);
    worst = std::isnan(off) ? off : std::max(worst, off);
  }
  model_->gradients().copy_(kept);
  if (!(worst <= kTolerance)) give_up(fmt::format("the norm of an image's gradient differs by {:.2g} when the other images do", worst));
}

SampleNorms PerSampleGradients::add_clipped_one_by_one(const Batch& batch, std::int64_t count, double bound) {
  const auto images = batch.images.size(0);
  std::vector<at::Tensor> each_loss, norms;
  const auto sum = model_->gradients().clone();
  for (std::int64_t i = 0; i < images; ++i) {
    const auto one = one_of(batch, i);
    model_->gradients().zero_();
    {
      const torch::AutoGradMode on(true);
      const auto [logits, features] = models::with_features([&] { return model_->forward(one.images); });
      const auto loss = objective_->loss_with(one, logits, features);
      loss.backward();
      each_loss.push_back(loss.detach());
    }
    norms.push_back(model_->gradients().norm(2, torch::kFloat64).to(torch::kFloat32));  // millions of terms
    if (i < count) sum.add_(model_->gradients() * (bound / norms.back().clamp_min(1e-30)).clamp_max(1));
  }
  model_->gradients().copy_(sum);
  return {torch::stack(norms), torch::stack(each_loss)};
}

}  // namespace preceptor::training
