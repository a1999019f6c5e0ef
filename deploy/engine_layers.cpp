// Layers of the plan: convolutions, linear layers, matrix products, pooling.
#include <algorithm>

#include "deploy/engine_planner.h"

namespace preceptor::deploy {
namespace {

using kernels::Activation;

/// Pixels whose channels are so many floats, or a multiple, fall on the same few sets of the first cache: they are laid a line apart.
constexpr std::int64_t kCrowded = 256, kApart = 16;

/// [B, C, H, W] as rows of channels.
View as_rows(const View& view, bool channels_first) { return channels_first ? permuted(view, {0, 2, 3, 1}) : view; }

std::string_view name_of(Activation activation) {
  constexpr std::string_view kNames[] = {"", " relu", " relu6", " silu", " sigmoid", " hardswish", " hardsigmoid", " gelu", " leaky_relu"};
  return kNames[std::size_t(activation)];
}

/// Offsets of every row of a view but its last dimension, in elements from its first.
std::vector<std::int32_t> row_offsets(const View& view) {
  std::vector<std::int32_t> offsets{0};
  for (std::size_t d = 0; d + 1 < view.sizes.size(); ++d) {
    std::vector<std::int32_t> next;
    next.reserve(offsets.size() * std::size_t(view.sizes[d]));
    for (const auto offset : offsets)
      for (std::int64_t i = 0; i < view.sizes[d]; ++i) next.push_back(std::int32_t(offset + i * view.strides[d]));
    offsets = std::move(next);
  }
  return offsets;
}

kernels::Window window_of(const Operator& op, const View& in, const Dims& out, std::array<std::int64_t, 2> kernel, const char* padding) {
  const auto stride = op.list("stride").empty() ? kernel : pair(op.list("stride"));
  const auto pad = pair(op.list(padding));
  const auto dilation = op.has("dilation") ? pair(op.list("dilation")) : std::array<std::int64_t, 2>{1, 1};
  return {in.sizes[0], in.sizes[1], in.sizes[2], in.sizes[3], out[2], out[3], kernel[0], kernel[1], stride[0], stride[1], pad[0], pad[1],
          dilation[0], dilation[1], in.strides[0], in.strides[2], in.strides[3]};
}

/// For each output pixel and tap, where the input pixel lies.
std::vector<std::int32_t> tap_offsets(const kernels::Window& w) {
  std::vector<std::int32_t> offsets;
  offsets.reserve(std::size_t(w.batch * w.out_height * w.out_width * w.kernel_height * w.kernel_width));
  for (std::int64_t b = 0; b < w.batch; ++b)
    for (std::int64_t y = 0; y < w.out_height; ++y)
      for (std::int64_t x = 0; x < w.out_width; ++x)
        for (std::int64_t ky = 0; ky < w.kernel_height; ++ky)
          for (std::int64_t kx = 0; kx < w.kernel_width; ++kx) {
            const auto iy = y * w.stride_y - w.padding_y + ky * w.dilation_y, ix = x * w.stride_x - w.padding_x + kx * w.dilation_x;
            const bool in = iy >= 0 && iy < w.height && ix >= 0 && ix < w.width;
            offsets.push_back(in ? std::int32_t(b * w.batch_stride + iy * w.row_stride + ix * w.pixel_stride) : kernels::kOutside);
          }
  return offsets;
}

/// One product of a layer: the groups of a grouped convolution are one each.
template <class T, class Matrix>
struct Product {
  std::shared_ptr<const Matrix> matrix;
  const T* base;
  kernels::Epilogue epilogue;
};

void multiply(const kernels::PackedMatrix& m, const kernels::TapRows<float>& rows, const kernels::Epilogue& epilogue) {
  kernels::gemm(m.values.get(), m.bias.get(), m.taps, m.depth, m.columns, rows, epilogue);
}
void multiply(const kernels::Int8Matrix& m, const kernels::TapRows<std::uint8_t>& rows, const kernels::Epilogue& epilogue) {
  kernels::gemm_int8(m, rows, epilogue);
}

kernels::Epilogue shifted(kernels::Epilogue e, std::int64_t columns) {
  if (e.out) e.out += columns;
  if (e.grid) e.grid += columns;
  if (e.residual) e.residual += columns;
  return e;
}

template <class T, class Matrix>
std::function<void()> products(const std::vector<std::shared_ptr<const Matrix>>& matrices, const T* base, T outside, std::int64_t rows,
                               std::vector<std::int32_t> offsets, const kernels::Epilogue& epilogue) {
  std::vector<Product<T, Matrix>> all;
  std::int64_t depth = 0, columns = 0;
  for (const auto& matrix : matrices) {
    all.push_back({matrix, base + depth, shifted(epilogue, columns)});
    depth += matrix->depth;
    columns += matrix->columns;
  }
  return [all = std::move(all), offsets = std::move(offsets), padding = std::vector<T>(std::size_t(matrices[0]->depth) + 64, outside), rows] {
    for (const auto& p : all) multiply(*p.matrix, {p.base, offsets.data(), rows, padding.data()}, p.epilogue);
  };
}

}  // namespace

View Planner::layer_output(int value, bool channels_first) {
  const auto shape = sizes(value);
  const auto placed = placements_.find(value);
  if (placed == placements_.end()) {
    if (!channels_first || shape.size() != 4 || shape[1] % kCrowded != 0) return allocate(shape, channels_first ? channels_last(shape) : contiguous(shape));
    const Dims wider{shape[0], shape[1] + kApart, shape[2], shape[3]};
    return narrowed(allocate(wider, channels_last(wider)), 1, 0, shape[1]);
  }
  const auto [whole, channel] = placed->second;
  if (of(whole).buffer < 0) give(whole, allocate(sizes(whole), channels_last(sizes(whole))));
  return narrowed(of(whole), 1, channel, shape[1]);
}

View Planner::with_rows(const View& view, bool channels_first) {
  const auto last = channels_first ? std::size_t(1) : view.sizes.size() - 1;
  if (view.strides[last] == 1 || view.sizes[last] == 1) {
    View same = view;
    same.strides[last] = 1;
    return same;
  }
  return copied(view, channels_first ? channels_last(view.sizes) : contiguous(view.sizes), "rows");
}

Planner::Ends Planner::ends(const Operator& op, bool channels_first) {
  Ends e;
  if (op.outputs[0] >= 0) {
    give(op.outputs[0], layer_output(op.outputs[0], channels_first));
    e.out = as_rows(of(op.outputs[0]), channels_first);
  }
  if (op.grid >= 0) {
    const auto shape = sizes(op.grid);
    give(op.grid, allocate(shape, program_.values[std::size_t(op.grid)].channels_fastest ? channels_last(shape) : contiguous(shape), 1));
    e.grid = as_rows(of(op.grid), channels_first);
  }
  if (op.residual >= 0) {
    const auto& view = of(op.residual);
    e.residual = as_rows(view, channels_first);
    if (!row_stride(*e.residual)) e.residual = as_rows(copied(view, channels_first ? channels_last(view.sizes) : contiguous(view.sizes), "summand"), channels_first);
  }
  kernels::Epilogue& k = e.epilogue;
  k.before = op.before;
  k.after = op.after;
  k.slope = float(op.slope);
  if (e.out) k.out = floats(*e.out), k.out_stride = row_stride(*e.out).value();
  if (e.grid) {
    k.grid = bytes(*e.grid);
    k.grid_stride = row_stride(*e.grid).value();
    k.inverse_scale = 1.f / op.grid_scale;
    k.zero = op.grid_zero;
  }
  if (e.residual) k.residual = floats(*e.residual), k.residual_stride = row_stride(*e.residual).value();
  return e;
}

void Planner::finish_layer(const Operator& op, const Ends& e, const View& in, const std::string& text, std::function<void()> run) {
  const bool integers = !op.int8_matrices.empty() || op.int8_depthwise;
  step(fmt::format("{}{}{}{}{}", text, integers ? " int8" : "", name_of(op.before), op.residual >= 0 ? " add" : "", name_of(op.after)) +
           (op.grid >= 0 ? " to int8" : ""),
       {&in, e.out ? &*e.out : nullptr, e.grid ? &*e.grid : nullptr, e.residual ? &*e.residual : nullptr}, std::move(run));
}

/// A row of the window and the channels of its pixels as one run of values: for images of few channels, whose single pixels
/// would be short. They are copied with their padding around them.
bool Planner::few_channels(const Operator& op) {
  const auto& kernel = program_.values[std::size_t(op.inputs[1])].sizes;
  constexpr std::int64_t kLongest = 32;  // floats of a run: a single pixel of more is long enough
  if (op.matrices.size() != 1 || kernel[3] == 1 || kernel[1] * kernel[3] > kLongest || pair(op.list("dilation"))[1] != 1) return false;
  const auto& in = of(op.inputs[0]);
  const auto padding = pair(op.list("padding"));
  const auto batch = in.sizes[0], channels = in.sizes[1], height = in.sizes[2] + 2 * padding[0], width = in.sizes[3] + 2 * padding[1];
  const Dims shape{batch, channels, height, width};
  const auto framed = allocate(shape, channels_last(shape));
  const auto inner = narrowed(narrowed(framed, 2, padding[0], in.sizes[2]), 3, padding[1], in.sizes[3]);
  const View operands[] = {inner, in};
  step("copy: framed", {&in, &framed},
       [loop = make_loop(operands), from = floats(in), to = floats(inner), all = floats(framed), batch, height, row = width * channels,
        top = padding[0] * width * channels, side = padding[1] * channels] {
         for (std::int64_t b = 0; b < batch; ++b) {
           float* first = all + b * height * row;
           std::fill_n(first, top + side, 0.f);
           for (float* end = first + top + row; end < first + height * row - top; end += row) std::fill_n(end - side, 2 * side, 0.f);
           std::fill_n(first + height * row - top - side, top + side, 0.f);
         }
         kernels::elementwise(loop, {}, to, from, nullptr, nullptr);
       });
  const auto e = ends(op, true);
  auto w = window_of(op, framed, (e.out ? permuted(*e.out, {0, 3, 1, 2}) : permuted(*e.grid, {0, 3, 1, 2})).sizes, {kernel[2], 1}, "padding");
  w.padding_x = w.padding_y = 0;
  finish_layer(op, e, framed, fmt::format("convolution {}x{} {}→{} of {}x{}", kernel[2], kernel[3], channels, kernel[0], w.out_height, w.out_width),
               [m = op.matrices[0], taps = kernel[2], depth = kernel[3] * channels, offsets = tap_offsets(w), base = floats(framed), k = e.epilogue,
                rows = w.batch * w.out_height * w.out_width] {
                 kernels::gemm(m->values.get(), m->bias.get(), taps, depth, m->columns, {base, offsets.data(), rows, nullptr}, k);
               });
  return true;
}

void Planner::convolution(const Operator& op) {
  if (few_channels(op)) return;
  const auto& kernel = program_.values[std::size_t(op.inputs[1])].sizes;
  const auto in = with_rows(of(op.inputs[0]), true);
  const auto e = ends(op, true);
  const auto w = window_of(op, in, (e.out ? permuted(*e.out, {0, 3, 1, 2}) : permuted(*e.grid, {0, 3, 1, 2})).sizes, {kernel[2], kernel[3]}, "padding");
  const auto rows = w.batch * w.out_height * w.out_width;
  const auto text = fmt::format("convolution {}x{} {}→{} of {}x{}{}", kernel[2], kernel[3], in.sizes[1], kernel[0], w.out_height, w.out_width,
                                op.depthwise || op.int8_depthwise ? " depthwise" : op.integer("groups") > 1 ? " grouped" : "");
  std::function<void()> run;
  if (op.depthwise) {
    run = [w, weights = op.depthwise, from = floats(in), k = e.epilogue] { kernels::depthwise(w, *weights, from, k); };
  } else if (op.int8_depthwise) {
    run = [w, weights = op.int8_depthwise, from = bytes(in), k = e.epilogue] { kernels::depthwise_int8(w, *weights, from, k); };
  } else if (!op.int8_matrices.empty()) {
    run = products(op.int8_matrices, bytes(in), std::uint8_t(op.int8_zero), rows, tap_offsets(w), e.epilogue);
  } else {
    run = products(op.matrices, floats(in), 0.f, rows, tap_offsets(w), e.epilogue);
  }
  finish_layer(op, e, in, text, std::move(run));
}

void Planner::linear(const Operator& op) {
  const auto in = with_rows(of(op.inputs[0]), false);
  const auto e = ends(op, false);
  auto offsets = row_offsets(in);
  const auto rows = std::int64_t(offsets.size()), columns = (e.out ? *e.out : *e.grid).sizes.back();
  const auto text = fmt::format("linear {}→{} of {}", in.sizes.back(), columns, rows);
  if (!op.int8_matrices.empty())
    finish_layer(op, e, in, text, products(op.int8_matrices, bytes(in), std::uint8_t(op.int8_zero), rows, std::move(offsets), e.epilogue));
  else
    finish_layer(op, e, in, text, products(op.matrices, floats(in), 0.f, rows, std::move(offsets), e.epilogue));
}

void Planner::matmul(const Operator& op) {
  const auto out_sizes = sizes(op.outputs[0]);
  const Dims batches(out_sizes.begin(), out_sizes.end() - 2);
  const auto with_batches = [&](const View& view) {
    auto shape = batches;
    shape.insert(shape.end(), view.sizes.end() - 2, view.sizes.end());
    return broadcast(view, shape);
  };
  const auto left = with_batches(with_rows(of(op.inputs[0]), false)), right = with_batches(of(op.inputs[1]));
  give(op.outputs[0], allocate(out_sizes, contiguous(out_sizes)));
  const auto out = of(op.outputs[0]);
  const auto dims = std::int64_t(out_sizes.size());
  const auto rows = out_sizes[std::size_t(dims - 2)], columns = out_sizes.back(), depth = left.sizes.back();
  const auto panel = kernels::panels(columns) * kernels::kPanel;
  const auto scratch = allocate({panel * depth}, {1});
  // Where each product's operands begin.
  const auto starts = [&](const View& view) {
    View rest{view.buffer, 0, batches, Dims(view.strides.begin(), view.strides.end() - 2)};
    rest.sizes.push_back(1);
    rest.strides.push_back(1);
    return row_offsets(rest);
  };
  std::vector<std::int32_t> offsets;
  for (std::int64_t i = 0; i < rows; ++i) offsets.push_back(std::int32_t(i * left.strides[std::size_t(dims - 2)]));
  step(fmt::format("matmul {}x{}x{}", rows, depth, columns), {&left, &right, &out, &scratch},
       [=, l = floats(left), r = floats(right), o = floats(out), packed = floats(scratch), from_left = starts(left), from_right = starts(right),
        depth_stride = right.strides[std::size_t(dims - 2)], column_stride = right.strides.back(), zeros = std::vector<float>(std::size_t(panel))] {
         kernels::Epilogue e;
         e.out_stride = columns;
         for (std::size_t b = 0; b < from_left.size(); ++b) {
           kernels::pack_into(packed, r + from_right[b], 1, depth, columns, 0, depth_stride, column_stride);
           e.out = o + std::int64_t(b) * rows * columns;
           kernels::gemm(packed, zeros.data(), 1, depth, columns, {l + from_left[b], offsets.data(), rows, nullptr}, e);
         }
       });
}

bool Planner::pool(const Operator& op) {
  if (of(op.inputs[0]).sizes.size() != 4) return false;
  const bool max = op.name == "max_pool2d";
  const auto in = with_rows(of(op.inputs[0]), true);
  const auto shape = sizes(op.outputs[0]);
  const auto w = window_of(op, in, shape, pair(op.list("kernel_size")), "padding");
  std::int64_t divisor = 0;
  if (!max) {
    const bool padded = w.padding_x != 0 || w.padding_y != 0 || op.integer("ceil_mode") != 0;
    if (padded && op.integer("count_include_pad") != 0) return false;
    if (op.has("divisor_override") && !op.list("divisor_override").empty()) divisor = op.integer("divisor_override");
  }
  give(op.outputs[0], allocate(shape, channels_last(shape)));
  const auto out = of(op.outputs[0]);
  kernels::Epilogue e;
  e.out = floats(out);
  e.out_stride = shape[1];
  step(op.name, {&in, &out}, [=, from = floats(in)] { max ? kernels::max_pool(w, from, e) : kernels::average_pool(w, divisor, from, e); });
  return true;
}

}  // namespace preceptor::deploy
