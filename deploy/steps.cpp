#include "common/progress.h"
#include "compression/model/restructure.h"
#include "deploy/step.h"

namespace preceptor::deploy {

Registry<StepEntry>& steps() {
  static Registry<StepEntry> registry("step");
  return registry;
}

namespace {

/// A copy: steps leave what they are given as it is.
Result<models::FlatModel> copy_of(models::FlatModel& model) { return compression::restructured(model, model.spec().structure); }

/// Trains in place, towards the labels and `teacher`'s logits. epochs 0: nothing.
Result<double> train(models::FlatModel& model, const distill::Teacher& teacher, const StepOptions& options, const Workshop& w, const char* title,
                     training::StepHook* hook = nullptr) {
  if (options.training.epochs == 0) return 0;
  const auto& soft = options.distillation;
  const bool taught = soft.soft_weight > 0 || soft.features != "none";
  TRY(distill::check(soft, int(w.data.train.classes.size())));
  const auto how = taught ? distill::with_views(options.training) : options.training;
  const auto objective = taught ? TRY(distill::make_objective(soft, teacher, w.data.train, how, w.seed)) : training::make_supervised(how, w.data.train);
  Progress progress(title);
  const auto report = [&](int epoch, double loss) {
    progress.update(double(epoch + 1) / how.epochs, fmt::format("epoch {}/{}, loss {:.3f}", epoch + 1, how.epochs, loss));
    return true;
  };
  return TRY(training::train(model, w.data.train, how, *objective, w.seed, {}, report, hook)).loss;
}

/// A new student of whatever the recipe has so far: two in a row are teacher, assistant and student (Mirzadeh 2020,
/// arXiv:1902.03393).
Result<StepResult> distil(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  TRY(training::check_task(options.model, w.data.train));
  auto student = TRY(models::FlatModel::create({options.model, model.spec().task}, options.training.device));
  student.initialise(RandomStream(w.seed, "student/init"));
  auto teacher = distill::Teacher::wrap(std::make_shared<models::FlatModel>(TRY(copy_of(model))));
  const auto loss = TRY(train(student, teacher, options, w, "distilling"));
  return StepResult{std::move(student), {{"loss", loss}}};
}

Result<StepResult> fine_tune(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  auto tuned = TRY(copy_of(model));
  const auto loss = TRY(train(tuned, w.teacher, options, w, "fine-tuning"));
  return StepResult{std::move(tuned), {{"loss", loss}}};
}

Result<StepResult> prune(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  const auto objective = training::make_supervised(options.training, w.data.train);
  const compression::Evidence evidence{objective.get(), &w.data.train, 8, options.training.batch};
  const auto between = [&](models::FlatModel& smaller, int) -> Result<void> {
    TRY(train(smaller, w.teacher, options, w, "fine-tuning"));
    return {};
  };
  auto pruned = TRY(compression::prune(model, options.prune, evidence, between));
  TRY(train(pruned.model, w.teacher, options, w, "fine-tuning"));
  const auto& r = pruned.report;
  StepReport report{{"parameters", {r.parameters_before, r.parameters_after}}, {"macs", {r.macs_before, r.macs_after}}};
  for (const auto& layer : r.layers) report["layers"].push_back({{"name", layer.name}, {"channels", {layer.before, layer.after}}});
  for (const auto& kept : r.unprunable) report["unprunable"].push_back({{"name", kept.name}, {"reason", kept.reason}});
  return StepResult{std::move(pruned.model), std::move(report)};
}

Result<StepResult> sparsify(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  auto trained = TRY(copy_of(model));
  auto channels = TRY(compression::find_channels(trained));
  compression::GroupSparsity hook(std::move(channels.groups), options.sparsity);
  const auto loss = TRY(train(trained, w.teacher, options, w, "training towards sparse groups", &hook));
  return StepResult{std::move(trained), {{"loss", loss}}};
}

Result<StepResult> mask(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  auto masked = TRY(copy_of(model));
  auto hook = TRY(compression::WeightMask::create(options.mask));
  const auto loss = TRY(train(masked, w.teacher, options, w, "training with masks", &hook));
  hook.apply(masked, 1);
  return StepResult{std::move(masked), {{"loss", loss}, {"zeros", compression::zeros(masked)}}};
}

Result<StepResult> factorise(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  auto factorised = TRY(compression::factorise(model, options.factorise));
  TRY(train(factorised.model, w.teacher, options, w, "fine-tuning"));
  StepReport report;
  for (const auto& layer : factorised.layers)
    report["layers"].push_back({{"name", layer.layer}, {"ranks", {layer.ranks.out, layer.ranks.in}}, {"energy", layer.energy}, {"weights", {layer.before, layer.after}}});
  return StepResult{std::move(factorised.model), std::move(report)};
}

/// After training: with calibration alone. With epochs: quantisation-aware on top.
Result<StepResult> quantise(models::FlatModel& model, const StepOptions& options, const Workshop& w) {
  auto quantised = TRY(compression::quantise(model, w.data.train, options.quantise));
  TRY(train(quantised.model, w.teacher, options, w, "training with rounding"));
  StepReport report{{"logit_error", quantised.error}, {"equalised", quantised.equalised}};
  for (const auto& layer : quantised.layers) report["layers"].push_back({{"name", layer.layer}, {"error", layer.error}, {"int8", layer.int8}});
  return StepResult{std::move(quantised.model), std::move(report)};
}

Result<StepResult> fuse(models::FlatModel& model, const StepOptions&, const Workshop&) {
  return StepResult{TRY(compression::fused(model)), {}};
}

const RegisterStep kDistil{"distil", {"train a new, smaller network under the eye of the one so far", distil}};
const RegisterStep kFineTune{"fine-tune", {"train on, under the eye of the recipe's teacher", fine_tune}};
const RegisterStep kPrune{"prune", {"remove whole channels and heads, then fine-tune", prune}};
const RegisterStep kSparsify{"sparsify", {"train so that whole groups become small, before pruning", sparsify}};
const RegisterStep kMask{"mask", {"set single weights to zero, or N of M, along a schedule", mask}};
const RegisterStep kFactorise{"factorise", {"layers as products of smaller ones, then fine-tune", factorise}};
const RegisterStep kQuantise{"quantise", {"int8 by calibration; with epochs, train with rounding", quantise}};
const RegisterStep kFuse{"fuse", {"branches that only training needs as one convolution each", fuse}};

}  // namespace
}  // namespace preceptor::deploy
