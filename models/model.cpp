#include "models/model.h"

#include <torch/torch.h>

#include <algorithm>

#include "models/cnn/reparameterise.h"
#include "models/structure.h"

namespace preceptor::models {
namespace {

constexpr double kMaxWidth = 2;

thread_local std::int64_t macs = 0;

/// Operators hand out their inputs before they run and their outputs after; this carries what is needed over.
struct Call : at::ObserverContext {
  double macs_an_output = 0;
  std::int64_t macs = 0;  ///< where the inputs alone tell
};

std::unique_ptr<at::ObserverContext> before(const at::RecordFunction& record) {
  auto call = std::make_unique<Call>();
  const std::string_view name = record.name();
  const auto inputs = record.inputs();
  if (name == "aten::convolution") {
    const auto image = inputs[0].toTensor(), weight = inputs[1].toTensor();
    if (inputs[6].toBool())  // transposed: each input position meets the whole kernel of its group
      call->macs = image.numel() / image.size(1) * weight.numel();
    else
      call->macs_an_output = double(weight.numel()) / double(weight.size(0));
  } else if (name == "aten::mm" || name == "aten::bmm") {
    call->macs_an_output = double(inputs[0].toTensor().size(-1));
  } else if (name == "aten::addmm" || name == "aten::baddbmm") {
    call->macs_an_output = double(inputs[1].toTensor().size(-1));
  }
  return call;
}

void after(const at::RecordFunction& record, at::ObserverContext* context) {
  const auto* call = static_cast<const Call*>(context);
  macs += call->macs;
  if (call->macs_an_output > 0) macs += std::int64_t(call->macs_an_output * double(record.outputs()[0].toTensor().numel()));
}

/// Shapes that came with a spec may fit each parameter and yet not each other.
Result<void> check_shapes(Model& network, const TaskOptions& task) {
  torch::NoGradGuard no_grad;
  network.eval();
  try {
    network.forward(torch::zeros({1, task.channels, task.image_size, task.image_size}));
  } catch (const std::exception& e) {
    return fail(Code::kInvalid, "structure.shapes do not fit each other: {}", std::string_view(e.what()).substr(0, 200));
  }
  network.train();
  return {};
}

/// Batch norms that are part of a branch which is folded, or that are not of images, have no group norm in their place.
Result<void> check_grouped(const Model& network, const std::string& name) {
  for (const auto& item : network.named_modules("", /*include_self=*/false)) {
    const auto& module = *item.value();
    const auto* norm = module.as<torch::nn::BatchNorm2d>();
    if (dynamic_cast<const Fusible*>(&module) || module.as<torch::nn::BatchNorm1d>() || (norm && norm->options.track_running_stats()))
      return fail(Code::kInvalid, "{} has no form with normalisation: group: '{}' needs batch norm", name, item.key());
  }
  return {};
}

}  // namespace

Registry<Architecture>& zoo() {
  static Registry<Architecture> registry("model");
  return registry;
}

Result<std::shared_ptr<Model>> build(const ModelSpec& spec) {
  const auto* architecture = TRY(zoo().find(spec.model.name));
  if (architecture->task == "classification" && spec.task.classes < 2)
    return fail(Code::kInvalid, "{}: classification needs two classes or more, not {}", spec.model.name, spec.task.classes);
  const auto has_variant = [](const ModelOptions& size) { return !size.variant.empty(); };
  if (!spec.model.variant.empty() && std::ranges::none_of(architecture->sizes, has_variant))
    return fail(Code::kInvalid, "{} has no variants, so not '{}'", spec.model.name, spec.model.variant);
  if (spec.model.width > kMaxWidth)  // before gigabytes are taken for what a peer's plan asks
    return fail(Code::kInvalid, "{}: widths go up to {}, not {}", spec.model.name, kMaxWidth, spec.model.width);
  const bool grouped = spec.model.normalisation == "group";
  const GroupedNorms scope(grouped);
  auto network = TRY(architecture->build(spec));
  if (grouped) TRY(check_grouped(*network, spec.model.name));
  TRY(apply(spec.structure, *network));
  if (!spec.structure.shapes.empty()) TRY(check_shapes(*network, spec.task));
  return network;
}

std::int64_t count_macs(Model& model, const TaskOptions& task) {
  const bool training = model.is_training();
  model.eval();
  const auto handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(before, after).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
  macs = 0;
  {
    torch::NoGradGuard no_grad;
    model.forward(torch::zeros({1, task.channels, task.image_size, task.image_size}));
  }
  at::removeCallback(handle);
  model.train(training);
  return macs;
}

}  // namespace preceptor::models
