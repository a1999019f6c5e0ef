// Everything of the plan that is no layer: views, copies, operators by element and by row.
#include <algorithm>
#include <functional>
#include <numeric>

#include "deploy/engine_planner.h"

namespace preceptor::deploy {
namespace {

using kernels::Activation;
using kernels::Elementwise;

std::size_t wrapped(std::int64_t dim, std::size_t dims) { return std::size_t(dim < 0 ? dim + std::int64_t(dims) : dim); }

const std::map<std::string, Activation, std::less<>> kActivations{
    {"relu", Activation::kRelu}, {"relu6", Activation::kRelu6}, {"silu", Activation::kSilu}, {"sigmoid", Activation::kSigmoid},
    {"gelu", Activation::kGelu}, {"hardswish", Activation::kHardswish}, {"hardsigmoid", Activation::kHardsigmoid},
    {"leaky_relu", Activation::kLeakyRelu}};

}  // namespace

void Planner::copy(const View& from, const View& to, const char* why) {
  const View operands[] = {to, broadcast(from, to.sizes)};
  step(fmt::format("copy: {}", why), {&from, &to},
       [loop = kernels::Loop(make_loop(operands)), a = floats(from), out = floats(to)] { kernels::elementwise(loop, {}, out, a, nullptr, nullptr); });
}

View Planner::copied(const View& view, Dims strides, const char* why) {
  const auto made = allocate(view.sizes, std::move(strides));
  copy(view, made, why);
  return made;
}

void Planner::reshape(const Operator& op) {
  const auto in = of(op.inputs[0]);
  const auto shape = sizes(op.outputs[0]);
  if (auto view = reshaped(in, shape)) return give(op.outputs[0], std::move(*view));
  // A copy: with channels fastest if what lies together becomes channels and the elements can be put so, else as LibTorch would.
  const auto fastest = std::size_t(order_of(in).back());
  const auto outer = [](const Dims& dims, std::size_t count) { return std::accumulate(dims.begin(), dims.begin() + std::ptrdiff_t(count), std::int64_t(1), std::multiplies{}); };
  if (shape.size() == 4 && outer(in.sizes, fastest + 1) <= outer(shape, 2)) {
    const auto as_images = allocate(shape, channels_last(shape));
    if (const auto to = reshaped(as_images, in.sizes)) {
      copy(in, *to, op.name.c_str());
      return give(op.outputs[0], as_images);
    }
  }
  give(op.outputs[0], reshaped(copied(in, contiguous(in.sizes), op.name.c_str()), shape).value());
}

bool Planner::run_view(const Operator& op) {
  const auto& n = op.name;
  static const std::map<std::string, int> kReshapes{{"view", 0}, {"reshape", 0}, {"flatten", 0}, {"unsqueeze", 0}, {"squeeze", 0}};
  if (kReshapes.contains(n)) {
    reshape(op);
    return true;
  }
  if (n == "cat" || n == "stack") {
    concatenate(op, n == "stack");
    return true;
  }
  if (n == "constant_pad_nd") {
    pad(op);
    return true;
  }
  if (op.inputs.empty() || op.inputs[0] < 0) return false;
  const auto& in = of(op.inputs[0]);
  const auto rank = in.sizes.size();
  if (n == "permute") {
    Dims dims;
    for (const double d : op.list("dims")) dims.push_back(std::int64_t(wrapped(std::int64_t(d), rank)));
    give(op.outputs[0], permuted(in, dims));
  } else if (n == "transpose") {
    View made = in;
    const auto a = wrapped(op.integer("dim0"), rank), b = wrapped(op.integer("dim1"), rank);
    std::swap(made.sizes[a], made.sizes[b]);
    std::swap(made.strides[a], made.strides[b]);
    give(op.outputs[0], made);
  } else if (n == "chunk" || n == "split_with_sizes") {
    const auto dim = wrapped(op.integer("dim"), rank);
    const View whole = in;
    std::int64_t start = 0;
    for (const int value : op.outputs) {
      const auto length = sizes(value)[dim];
      give(value, narrowed(whole, std::int64_t(dim), start, length));
      start += length;
    }
  } else if (n == "narrow") {
    const auto dim = wrapped(op.integer("dim"), rank);
    give(op.outputs[0], narrowed(in, std::int64_t(dim), at_batch(op.number("start")), sizes(op.outputs[0])[dim]));
  } else if (n == "select") {
    const auto dim = wrapped(op.integer("dim"), rank);
    const auto index = op.integer("index");
    View made = narrowed(in, std::int64_t(dim), index < 0 ? index + in.sizes[dim] : index, 1);
    made.sizes.erase(made.sizes.begin() + std::ptrdiff_t(dim));
    made.strides.erase(made.strides.begin() + std::ptrdiff_t(dim));
    give(op.outputs[0], made);
  } else if (n == "expand") {
    give(op.outputs[0], broadcast(in, sizes(op.outputs[0])));
  } else {
    return false;
  }
  return true;
}

void Planner::concatenate(const Operator& op, bool stack) {
  const auto value = op.outputs[0];
  const auto shape = sizes(value);
  const auto dim = wrapped(op.integer("dim"), shape.size());
  if (of(value).buffer < 0) {
    const auto& first = of(op.inputs[0]);
    const bool channels_first = shape.size() == 4 && !stack && first.strides[1] == 1 && first.sizes[1] > 1;
    give(value, allocate(shape, channels_first ? channels_last(shape) : contiguous(shape)));
  }
  std::int64_t at = 0;
  for (const int part : op.inputs) {
    View from = of(part);
    if (stack) {
      from.sizes.insert(from.sizes.begin() + std::ptrdiff_t(dim), 1);
      from.strides.insert(from.strides.begin() + std::ptrdiff_t(dim), 0);
    }
    const auto to = narrowed(of(value), std::int64_t(dim), at, from.sizes[dim]);
    at += from.sizes[dim];
    if (from.buffer != to.buffer || from.offset != to.offset) copy(from, to, op.name.c_str());
  }
}

void Planner::pad(const Operator& op) {
  View in = of(op.inputs[0]);
  const auto shape = sizes(op.outputs[0]);
  const auto order = order_of(in);
  View out = allocate(shape, dense_strides(shape, order)), to = out;
  const auto& amounts = op.list("pad");  // from the last dimension on: before, behind
  for (std::size_t i = 0; i < amounts.size() / 2; ++i) {
    const auto d = shape.size() - 1 - i;
    const auto before = std::int64_t(amounts[2 * i]), behind = std::int64_t(amounts[2 * i + 1]);
    in = narrowed(in, std::int64_t(d), std::max<std::int64_t>(0, -before), in.sizes[d] + std::min<std::int64_t>(0, before) + std::min<std::int64_t>(0, behind));
    to = narrowed(to, std::int64_t(d), std::max<std::int64_t>(0, before), in.sizes[d]);
  }
  const View operands[] = {to, in};
  step("constant_pad_nd", {&in, &out},
       [loop = make_loop(operands), a = floats(in), inner = floats(to), all = floats(out), count = out.elements(),
        value = op.has("value") && !op.list("value").empty() ? float(op.number("value")) : 0.f] {
         std::fill_n(all, count, value);
         kernels::elementwise(loop, {}, inner, a, nullptr, nullptr);
       });
  give(op.outputs[0], out);
}

bool Planner::run_elementwise(const Operator& op) {
  const auto& n = op.name;
  kernels::Operation what;
  std::vector<int> operands(op.inputs.begin(), op.inputs.end());
  const bool two = operands.size() == 2;
  if (const auto found = kActivations.find(n); found != kActivations.end()) {
    what.activation = found->second;
    if (n == "leaky_relu") what.slope = float(op.number("negative_slope"));
  } else if (n == "add") {
    what.what = two ? Elementwise::kAdd : Elementwise::kAddNumber;
    what.number = float(two ? op.number("alpha") : op.number("other") * op.number("alpha"));
  } else if (n == "mul") {
    what.what = two ? Elementwise::kMul : Elementwise::kMulNumber;
    if (!two) what.number = float(op.number("other"));
  } else if (n == "div" && two) {
    what.what = Elementwise::kDiv;
  } else if (n == "lerp" && operands.size() == 3) {
    what.what = Elementwise::kLerp;
  } else if (n == "square") {
    what.what = Elementwise::kSquare;
  } else if (n == "quantise" || n == "fake_quantize_per_tensor_affine") {
    what.what = Elementwise::kFakeQuantise;
    what.number = float(op.number("scale"));
    what.inverse_scale = 1.f / float(op.number("scale"));
    what.zero = std::int32_t(op.integer("zero_point"));
    if (op.integer("quant_min") != 0 || op.integer("quant_max") != 255) return false;
  } else {
    return false;
  }
  for (const int value : operands)
    if (program_.values[std::size_t(value)].elsewhere) return false;
  const auto shape = sizes(op.outputs[0]);
  const auto strides = [&] {
    if (n == "quantise") return program_.values[std::size_t(op.outputs[0])].channels_fastest ? channels_last(shape) : contiguous(shape);
    for (const int value : operands)
      if (of(value).sizes == shape) return dense_strides(shape, order_of(of(value)));
    return contiguous(shape);
  }();
  const bool grid = n == "quantise";
  give(op.outputs[0], allocate(shape, strides, grid ? 1 : sizeof(float)));
  std::vector<View> all{of(op.outputs[0])};
  for (const int value : operands) all.push_back(broadcast(of(value), shape));
  const auto loop = make_loop(all);
  const auto pointer = [&](std::size_t i) -> const float* { return i < all.size() ? floats(all[i]) : nullptr; };
  const View* second = all.size() > 2 ? &all[2] : nullptr;
  const View* third = all.size() > 3 ? &all[3] : nullptr;
  if (grid)
    step("quantise", {&all[0], &all[1]}, [=, out = bytes(all[0]), a = pointer(1)] { kernels::quantise(loop, what.inverse_scale, what.zero, out, a); });
  else
    step(n, {&all[0], &all[1], second, third},
         [=, out = floats(all[0]), a = pointer(1), b = pointer(2), c = pointer(3)] { kernels::elementwise(loop, what, out, a, b, c); });
  return true;
}

void Planner::reduce(const Operator& op, bool mean) {
  const auto in = of(op.inputs[0]);
  auto kept = in.sizes;
  double count = 1;
  for (const double d : op.list("dim")) {
    auto& size = kept[wrapped(std::int64_t(d), kept.size())];
    count *= double(size);
    size = 1;
  }
  const auto out = allocate(kept, dense_strides(kept, order_of(in)));
  View everywhere = broadcast(out, in.sizes);
  // The loops go by the input's order, so that what lies together is summed together.
  const View operands[] = {in, everywhere};
  auto loop = make_loop(operands);
  std::swap(loop.strides[0], loop.strides[1]);
  step(op.name, {&in, &out}, [loop, a = floats(in), to = floats(out), elements = out.elements(), factor = mean ? float(1 / count) : 1.f] {
    std::fill_n(to, elements, 0.f);
    kernels::accumulate(loop, to, a);
    for (std::int64_t i = 0; i < elements && factor != 1; ++i) to[i] *= factor;
  });
  give(op.outputs[0], reshaped(out, sizes(op.outputs[0])).value());
}

void Planner::softmax(const Operator& op) {
  const auto in = of(op.inputs[0]);
  const auto dim = wrapped(op.integer("dim"), in.sizes.size());
  // With the dimension last; the result keeps that order in memory.
  Dims order;
  for (std::size_t d = 0; d < in.sizes.size(); ++d)
    if (d != dim) order.push_back(std::int64_t(d));
  order.push_back(std::int64_t(dim));
  auto rows = permuted(in, order);
  if (!row_stride(rows)) rows = copied(rows, contiguous(rows.sizes), "softmax");
  const auto out = allocate(rows.sizes, contiguous(rows.sizes));
  const auto length = rows.sizes.back();
  step("softmax", {&rows, &out}, [=, count = out.elements() / length, stride = row_stride(rows).value(), a = floats(rows), to = floats(out)] {
    kernels::softmax(to, a, count, length, length, stride);
  });
  Dims back(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) back[std::size_t(order[i])] = std::int64_t(i);
  give(op.outputs[0], permuted(out, back));
}

bool Planner::run_rows(const Operator& op) {
  const auto& n = op.name;
  const auto weight = [&](std::size_t i) -> const float* { return op.inputs.size() > i && op.inputs[i] >= 0 ? floats(of(op.inputs[i])) : nullptr; };
  if ((n == "mean" || n == "sum") && op.has("dim") && !op.list("dim").empty()) {
    reduce(op, n == "mean");
  } else if (n == "softmax") {
    softmax(op);
  } else if ((n == "matmul" && of(op.inputs[0]).sizes.size() >= 2 && of(op.inputs[1]).sizes.size() >= 2) || n == "bmm" || n == "mm") {
    matmul(op);
  } else if (n == "max_pool2d" || n == "avg_pool2d") {
    return pool(op);
  } else if (n == "layer_norm" && op.list("normalized_shape").size() == 1) {
    auto in = of(op.inputs[0]);
    if (!row_stride(in)) in = copied(in, contiguous(in.sizes), "layer_norm");
    const auto out = allocate(in.sizes, contiguous(in.sizes));
    const auto length = in.sizes.back();
    step(n, {&in, &out}, [=, count = in.elements() / length, stride = row_stride(in).value(), a = floats(in), to = floats(out), scale = weight(1),
                          shift = weight(2), eps = float(op.number("eps"))] { kernels::layer_norm(to, a, count, length, length, stride, scale, shift, eps); });
    give(op.outputs[0], out);
  } else if (n == "group_norm" && of(op.inputs[0]).sizes.size() == 4) {
    auto in = of(op.inputs[0]);
    if (!row_stride(permuted(in, {0, 2, 3, 1}))) in = copied(in, channels_last(in.sizes), "group_norm");
    const auto out = allocate(in.sizes, channels_last(in.sizes));
    const auto pixels = in.sizes[2] * in.sizes[3], channels = in.sizes[1];
    step(n, {&in, &out}, [=, groups = op.integer("num_groups"), batch = in.sizes[0], stride = row_stride(permuted(in, {0, 2, 3, 1})).value(), a = floats(in),
                          to = floats(out), scale = weight(1), shift = weight(2), eps = float(op.number("eps"))] {
      for (std::int64_t b = 0; b < batch; ++b)
        kernels::group_norm(to + b * pixels * channels, a + b * pixels * stride, pixels, channels, groups, channels, stride, scale, shift, eps);
    });
    give(op.outputs[0], out);
  } else {
    return false;
  }
  return true;
}

}  // namespace preceptor::deploy
