#include "deploy/engine.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "deploy/engine_plan.h"

namespace preceptor::deploy {
namespace {

std::shared_ptr<const Constant> constant_of(const at::Tensor& tensor) {
  constexpr std::size_t kSlack = 32;  // floats: kernels read whole vectors
  const auto flat = tensor.detach().contiguous();
  auto made = std::make_shared<Constant>();
  made->size = std::size_t(flat.numel());
  made->data = hwy::AllocateAligned<float>(made->size + kSlack);
  std::copy_n(flat.data_ptr<float>(), made->size, made->data.get());
  std::fill_n(made->data.get() + made->size, kSlack, 0.f);
  return made;
}

std::vector<double> numbers_of(const c10::IValue& value) {
  if (value.isInt()) return {double(value.toInt())};
  if (value.isDouble()) return {value.toDouble()};
  if (value.isBool()) return {double(value.toBool())};
  if (value.isIntList()) {
    const auto ints = value.toIntVector();
    return {ints.begin(), ints.end()};
  }
  return {};
}

Program program_of(const models::Graph& graph) {
  Program program;
  program.image = graph.image;
  program.logits = graph.logits;
  for (const auto& value : graph.values) {
    Value made{value.shape, value.batched, nullptr, false, false, false};
    const bool fixed = value.kind == models::GraphValue::Kind::kConstant || value.kind == models::GraphValue::Kind::kParameter;
    if (fixed && value.tensor.scalar_type() == at::kFloat) made.constant = constant_of(value.tensor);
    else made.elsewhere = fixed || value.type != at::kFloat;
    program.values.push_back(std::move(made));
  }
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const auto& node = graph.nodes[n];
    Operator op;
    op.name = node.op;
    op.node = int(n);
    op.outputs = node.outputs;
    for (const auto& argument : node.arguments) {
      op.inputs.insert(op.inputs.end(), argument.values.begin(), argument.values.end());
      if (!argument.values.empty() || argument.is_list) continue;
      if (argument.constant.isString()) {
        if (argument.constant.toStringRef() == "tanh") op.attributes["approximate_tanh"];
      } else {
        op.attributes[argument.name] = numbers_of(argument.constant);
      }
    }
    program.operators.push_back(std::move(op));
  }
  return program;
}

at::Tensor tensor_over(const TensorRef& ref) { return torch::from_blob(ref.data, ref.sizes, ref.strides, torch::kFloat32); }

}  // namespace

struct Engine::Parts {
  models::Graph graph;
  Program program;
  std::map<std::int64_t, Plan> plans;

  Plan& plan(std::int64_t batch) {
    if (const auto found = plans.find(batch); found != plans.end()) return found->second;
    const Fallback fallback = [this](int n, std::int64_t b, std::vector<TensorRef> inputs, std::vector<TensorRef> outputs) -> std::function<void()> {
      const auto& node = graph.nodes[std::size_t(n)];
      std::vector<at::Tensor> in, out;
      const auto values = node.inputs();
      for (std::size_t i = 0; i < inputs.size(); ++i)
        in.push_back(inputs[i].data ? tensor_over(inputs[i]) : graph.values[std::size_t(values[i])].tensor);
      for (const auto& output : outputs) out.push_back(tensor_over(output));
      return [&node, b, in = std::move(in), out = std::move(out)] {
        const auto made = models::run_node(node, in, b);
        for (std::size_t i = 0; i < out.size(); ++i) at::Tensor(out[i]).copy_(made[i]);
      };
    };
    return plans.emplace(batch, make_plan(program, batch, fallback)).first->second;
  }
};

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Result<Engine> Engine::create(models::Graph frozen) {
  for (const int value : {frozen.image, frozen.logits}) {
    const auto& v = frozen.values[std::size_t(value)];
    if (v.type != at::kFloat || v.batched.empty() || !v.batched[0])
      return fail(Code::kInvalid, "the graph's {} is not a batch of floats", value == frozen.image ? "image" : "output");
  }
  torch::NoGradGuard no_grad;
  auto parts = std::make_unique<Parts>();
  parts->graph = std::move(frozen);
  parts->program = program_of(parts->graph);
  fuse(parts->program);
  pack_weights(parts->program);
  return Engine(std::move(parts));
}

Result<Engine> Engine::create(models::FlatModel& model) {
  model.network().eval();
  model.network().fuse();
  auto graph = TRY(models::trace(model.network(), model.spec().task));
  models::freeze(graph);
  return create(std::move(graph));
}

std::span<const float> Engine::run(std::span<const float> images, std::int64_t batch) {
  torch::InferenceMode inference;
  auto& plan = parts_->plan(batch);
  if (std::int64_t(images.size()) != plan.image_elements) throw std::logic_error("images of another size than the engine was made for");
  std::ranges::copy(images, plan.image);
  for (const auto& step : plan.steps) step.run();
  return {plan.logits, std::size_t(plan.logits_elements)};
}

at::Tensor Engine::logits(const at::Tensor& images) {
  const auto dense = images.detach().to(torch::kFloat32).contiguous();
  const auto all = run({dense.data_ptr<float>(), std::size_t(dense.numel())}, dense.size(0));
  const auto shape = parts_->program.values[std::size_t(parts_->program.logits)].at(dense.size(0));
  return torch::from_blob(const_cast<float*>(all.data()), shape, torch::kFloat32).clone();
}

Engine::Bytes Engine::bytes(std::int64_t batch) { return {parts_->program.weight_bytes, parts_->plan(batch).arena_bytes}; }

std::vector<Engine::StepInfo> Engine::steps(std::int64_t batch) {
  std::vector<StepInfo> all;
  for (const auto& step : parts_->plan(batch).steps) all.push_back({step.text, step.fallback});
  return all;
}

std::vector<double> Engine::profile(std::int64_t batch, int repeats) {
  torch::InferenceMode inference;
  auto& plan = parts_->plan(batch);
  std::fill_n(plan.image, plan.image_elements, 0.f);
  std::vector<std::vector<double>> times(plan.steps.size());
  for (int r = 0; r < repeats; ++r)
    for (std::size_t s = 0; s < plan.steps.size(); ++s) {
      const auto start = std::chrono::steady_clock::now();
      plan.steps[s].run();
      times[s].push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    }
  std::vector<double> medians;
  for (auto& all : times) {
    std::ranges::nth_element(all, all.begin() + std::ptrdiff_t(all.size() / 2));
    medians.push_back(all[all.size() / 2]);
  }
  return medians;
}

}  // namespace preceptor::deploy
