#include "models/model.h"

#include <torch/torch.h>

namespace preceptor::models {
namespace {

thread_local std::int64_t macs = 0;

/// Called by LibTorch after each operator, with its inputs and outputs.
void count_operator(const at::RecordFunction& call, at::ObserverContext*) {
  const std::string_view name = call.name();
  const auto inputs = call.inputs();
  if (name == "aten::convolution") {
    const auto weight = inputs[1].toTensor();
    const auto out = call.outputs()[0].toTensor();
    const bool transposed = inputs[6].toBool();
    const auto positions = transposed ? inputs[0].toTensor() : out;
    macs += positions.numel() / positions.size(1) * weight.numel();
  } else if (name == "aten::mm" || name == "aten::bmm" || name == "aten::addmm" || name == "aten::baddbmm") {
    const bool biased = name == "aten::addmm" || name == "aten::baddbmm";
    macs += call.outputs()[0].toTensor().numel() * inputs[biased ? 1 : 0].toTensor().size(-1);
  }
}

}  // namespace

Registry<Architecture>& zoo() {
  static Registry<Architecture> registry("model");
  return registry;
}

Result<std::shared_ptr<Model>> build(const ModelSpec& spec) {
  const auto* architecture = TRY(zoo().find(spec.model.name));
  return architecture->build(spec);
}

std::int64_t count_macs(Model& model, const TaskOptions& task) {
  const bool training = model.is_training();
  model.eval();
  const auto handle = at::addThreadLocalCallback(at::RecordFunctionCallback(
      [](const at::RecordFunction&) -> std::unique_ptr<at::ObserverContext> { return nullptr; }, count_operator)
          .needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
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
