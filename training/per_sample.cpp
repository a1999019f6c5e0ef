#include "training/per_sample.h"

#include <torch/csrc/autograd/engine.h>
#include <torch/torch.h>

#include "common/log.h"
#include "models/adaptable.h"
#include "training/layer_gradients.h"

namespace preceptor::training {
namespace {

constexpr std::int64_t kChecked = 2;    ///< images of each batch size that are done both ways
constexpr double kTolerance = 2e-3;     ///< relative, between the two

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
  auto squares = torch::zeros({images}, each_loss.options().requires_grad(false));
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
  const SampleNorms result{squares.sqrt(), each_loss.detach()};
  check(batch, result.norms);
  if (one_by_one_) return add_clipped_one_by_one(batch, count, bound);
  const auto factors = factors_for(result.norms, count, bound);
  for (const auto& part : parts) part.add_sum(factors);
  return result;
}

void PerSampleGradients::check(const Batch& batch, const at::Tensor& norms) {
  if (!checked_.insert(batch.images.size(0)).second) return;
  const auto kept = model_->gradients().clone();
  const auto count = std::min(kChecked, batch.images.size(0));
  const Batch few{batch.images.narrow(0, 0, count), batch.labels.narrow(0, 0, count), batch.index.first(std::size_t(count)), batch.view};
  const auto expected = add_clipped_one_by_one(few, count, 1).norms;
  model_->gradients().copy_(kept);
  const auto worst = ((norms.narrow(0, 0, count) - expected).abs() / expected.clamp_min(1e-12)).max().item<double>();
  if (!(worst <= kTolerance)) give_up(fmt::format("norms of all at once differ from those one by one by {:.2g}", worst));
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
    norms.push_back(model_->gradients().norm());
    if (i < count) sum.add_(model_->gradients() * (bound / norms.back().clamp_min(1e-30)).clamp_max(1));
  }
  model_->gradients().copy_(sum);
  return {torch::stack(norms), torch::stack(each_loss)};
}

}  // namespace preceptor::training
