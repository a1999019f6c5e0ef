#include "deploy/engine_plan.h"

#include <algorithm>

#include "deploy/engine_planner.h"

namespace preceptor::deploy {
namespace {

constexpr std::size_t kAlign = 64, kSlack = 128;  // kernels read whole vectors: up to this behind a tensor

std::size_t aligned(std::size_t bytes) { return (bytes + kSlack + kAlign - 1) / kAlign * kAlign; }

/// Offsets by first fit, the largest first; returns the arena's size.
std::size_t place(std::vector<Buffer>& buffers) {
  std::vector<Buffer*> sorted;
  for (auto& buffer : buffers)
    if (!buffer.constant && buffer.first >= 0) sorted.push_back(&buffer);
  std::ranges::stable_sort(sorted, [](const Buffer* a, const Buffer* b) { return a->bytes > b->bytes; });
  std::size_t size = 0;
  std::vector<const Buffer*> done;  // by offset
  for (auto* buffer : sorted) {
    std::size_t offset = 0;
    for (const auto* other : done) {
      if (other->last < buffer->first || buffer->last < other->first) continue;
      if (offset + aligned(buffer->bytes) <= other->offset) break;
      offset = std::max(offset, other->offset + aligned(other->bytes));
    }
    buffer->offset = offset;
    size = std::max(size, offset + aligned(buffer->bytes));
    done.insert(std::ranges::upper_bound(done, offset, {}, &Buffer::offset), buffer);
  }
  return size;
}

}  // namespace

Plan make_plan(const Program& program, std::int64_t batch, const Fallback& fallback) {
  Planner first(program, batch, fallback, nullptr, {});
  first.walk();
  Plan plan;
  plan.arena_bytes = place(first.buffers) + kSlack;
  plan.arena = hwy::AllocateAligned<std::byte>(plan.arena_bytes);
  std::fill_n(plan.arena.get(), plan.arena_bytes, std::byte{0});
  Planner second(program, batch, fallback, plan.arena.get(), first.buffers);
  second.walk();
  plan.steps = std::move(second.steps);
  plan.image = second.floats(second.image);
  plan.image_elements = second.image.elements();
  plan.logits = second.floats(second.logits);
  plan.logits_elements = second.logits.elements();
  return plan;
}

Planner::Planner(const Program& program, std::int64_t batch, const Fallback& fallback, std::byte* arena, std::vector<Buffer> placed)
    : program_(program), batch_(batch), fallback_(fallback), arena_(arena), placed_(std::move(placed)), views_(program.values.size()) {}

std::byte* Planner::memory(int buffer) const {
  const auto& b = buffers[std::size_t(buffer)];
  if (b.constant) return reinterpret_cast<std::byte*>(const_cast<float*>(b.constant));
  if (!arena_) return reinterpret_cast<std::byte*>(kAlign);  // never read: the first walk only counts
  return arena_ + placed_[std::size_t(buffer)].offset;
}

int Planner::new_buffer(std::int64_t elements, std::size_t size) {
  buffers.push_back({std::size_t(elements) * size});
  return int(buffers.size()) - 1;
}

View Planner::allocate(const Dims& sizes, Dims strides, std::size_t size) {
  View view{-1, 0, sizes, std::move(strides)};
  view.buffer = new_buffer(view.elements(), size);
  return view;
}

View Planner::constant(const Value& value) {
  const auto [at, is_new] = constants_.try_emplace(value.constant.get(), 0);
  if (is_new) {
    at->second = new_buffer(std::int64_t(value.constant->size), sizeof(float));
    buffers.back().constant = value.constant->data.get();
  }
  return {at->second, 0, value.sizes, contiguous(value.sizes)};
}

std::int64_t Planner::at_batch(double k) const {
  constexpr double kTimesBatch = -double(std::int64_t(1) << 40);  // models::at_batch's
  return k <= kTimesBatch ? std::int64_t(kTimesBatch - k) * batch_ : std::int64_t(k);
}

void Planner::touch(const View& view) {
  auto& buffer = buffers[std::size_t(view.buffer)];
  const int now = int(steps.size());
  if (buffer.first < 0) buffer.first = now;
  buffer.last = now;
}

void Planner::step(std::string text, std::initializer_list<const View*> touched, std::function<void()> run) {
  for (const auto* view : touched)
    if (view) touch(*view);
  steps.push_back({std::move(text), false, std::move(run)});
}

void Planner::walk() {
  find_placements();
  for (std::size_t v = 0; v < views_.size(); ++v)
    if (program_.values[v].constant) views_[v] = constant(program_.values[v]);
  const auto images = sizes(program_.image);
  image = allocate(images, contiguous(images));
  buffers[std::size_t(image.buffer)].first = 0;
  give(program_.image, image);
  for (const auto& op : program_.operators) run(op);
  logits = of(program_.logits);
  if (logits.strides != contiguous(logits.sizes)) logits = copied(logits, contiguous(logits.sizes), "logits");
  touch(logits);
}

void Planner::run(const Operator& op) {
  if (!op.matrices.empty() || !op.int8_matrices.empty() || op.depthwise || op.int8_depthwise)
    return op.name == "linear" ? linear(op) : convolution(op);
  if (run_view(op) || run_elementwise(op) || run_rows(op)) return;
  run_fallback(op);
}

void Planner::run_fallback(const Operator& op) {
  std::vector<TensorRef> inputs, outputs;
  for (const int value : op.inputs) {
    if (value < 0) continue;  // as Node::inputs()
    const auto& v = program_.values[std::size_t(value)];
    if (v.constant || v.elsewhere) {
      inputs.push_back({});
      continue;
    }
    inputs.push_back({floats(of(value)), of(value).sizes, of(value).strides});
    touch(of(value));
  }
  const View* first = nullptr;
  for (const int value : op.inputs)
    if (value >= 0 && !first && !program_.values[std::size_t(value)].elsewhere) first = &of(value);
  for (const int value : op.outputs) {
    const auto shape = sizes(value);
    const bool channels_first = first && first->sizes.size() == 4 && first->strides[1] == 1;
    give(value, allocate(shape, channels_first ? channels_last(shape) : contiguous(shape)));
    outputs.push_back({floats(of(value)), of(value).sizes, of(value).strides});
    touch(of(value));
  }
  steps.push_back({fmt::format("{} (LibTorch)", op.name), true, arena_ ? fallback_(op.node, batch_, inputs, outputs) : std::function<void()>()});
}

void Planner::find_placements() {
  const auto users = program_.consumers();
  std::vector<const Operator*> maker(program_.values.size());
  for (const auto& op : program_.operators)
    for (const int value : op.outputs)
      if (value >= 0) maker[std::size_t(value)] = &op;
  for (const auto& op : program_.operators) {
    if (op.name != "cat" || op.integer("dim") != 1 || program_.values[std::size_t(op.outputs[0])].sizes.size() != 4) continue;
    std::int64_t channel = 0;
    for (const int value : op.inputs) {
      const auto* made = maker[std::size_t(value)];
      if (made && made->name == "convolution" && (!made->matrices.empty() || made->depthwise || !made->int8_matrices.empty() || made->int8_depthwise))
        placements_.try_emplace(value, op.outputs[0], channel);
      channel += program_.values[std::size_t(value)].sizes[1];
    }
  }
}

}  // namespace preceptor::deploy
