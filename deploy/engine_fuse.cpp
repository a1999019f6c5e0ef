#include <algorithm>
#include <optional>
#include <set>

#include "deploy/engine_program.h"

namespace preceptor::deploy {
namespace {

using kernels::Activation;

bool is_layer(const Operator& op) { return op.name == "convolution" || op.name == "linear"; }

std::optional<Activation> activation_of(const Operator& op) {
  static const std::map<std::string, Activation> kNames{
      {"relu", Activation::kRelu},           {"relu6", Activation::kRelu6},     {"silu", Activation::kSilu},
      {"sigmoid", Activation::kSigmoid},     {"gelu", Activation::kGelu},       {"hardswish", Activation::kHardswish},
      {"hardsigmoid", Activation::kHardsigmoid}, {"leaky_relu", Activation::kLeakyRelu}};
  const auto found = kNames.find(op.name);
  return found == kNames.end() ? std::nullopt : std::optional(found->second);
}

bool transposed(const Operator& op) { return op.name == "convolution" && op.integer("transposed") != 0; }

/// Products with a constant right matrix are linear layers whose weight lies the other way round.
void find_linear_layers(Program& program) {
  for (auto& op : program.operators) {
    const bool sum = op.name == "addmm";
    if (!sum && op.name != "mm" && op.name != "matmul") continue;
    const auto& right = program.values[std::size_t(op.inputs[sum ? 2 : 1])];
    const auto& left = program.values[std::size_t(op.inputs[sum ? 1 : 0])];
    if (!right.constant || right.sizes.size() != 2 || left.constant) continue;
    if (sum && (op.number("beta") != 1 || op.number("alpha") != 1 || !program.values[std::size_t(op.inputs[0])].constant ||
                program.values[std::size_t(op.inputs[0])].sizes.size() != 1))
      continue;
    op.inputs = sum ? std::vector{op.inputs[1], op.inputs[2], op.inputs[0]} : std::vector{op.inputs[0], op.inputs[1], -1};
    op.name = "linear";
    op.attributes = {{"columns_first", {1}}};
  }
}

/// The same rounding of the same value, once.
void share_roundings(Program& program) {
  std::map<std::vector<double>, int> first;
  std::map<int, int> renamed;
  std::erase_if(program.operators, [&](Operator& op) {
    for (auto& input : op.inputs)
      if (const auto found = renamed.find(input); found != renamed.end()) input = found->second;
    if (op.name != "fake_quantize_per_tensor_affine") return false;
    const auto [at, is_new] =
        first.try_emplace({double(op.inputs[0]), op.number("scale"), op.number("zero_point"), op.number("quant_min"), op.number("quant_max")}, op.outputs[0]);
    if (!is_new) renamed[op.outputs[0]] = at->second;
    return !is_new;
  });
  if (const auto found = renamed.find(program.logits); found != renamed.end()) program.logits = found->second;
}

/// Weights as whole numbers of a step a column, the largest being 127 steps; nothing where they are not.
struct OnGrid {
  std::vector<std::int8_t> values;
  std::vector<float> scales;
};

std::optional<OnGrid> on_grid(const Value& weight) {
  const auto columns = weight.sizes[0];
  const auto inner = std::int64_t(weight.constant->size) / std::max<std::int64_t>(1, columns);
  OnGrid grid{std::vector<std::int8_t>(weight.constant->size), std::vector<float>(std::size_t(columns))};
  constexpr float kOff = 0.02f;  // of a step: float32 rounds the products that the grid was folded into
  for (std::int64_t c = 0; c < columns; ++c) {
    const float* row = weight.constant->data.get() + c * inner;
    float largest = 0;
    for (std::int64_t i = 0; i < inner; ++i) largest = std::max(largest, std::abs(row[i]));
    const float scale = largest / 127;
    grid.scales[std::size_t(c)] = scale;
    for (std::int64_t i = 0; i < inner && scale > 0; ++i) {
      const float steps = row[i] / scale, whole = std::nearbyint(steps);
      if (std::abs(steps - whole) > kOff) return std::nullopt;
      grid.values[std::size_t(c * inner + i)] = std::int8_t(whole);
    }
  }
  return grid;
}

bool is_rounding(const Operator& op) {
  return op.name == "fake_quantize_per_tensor_affine" && op.integer("quant_min") == 0 && op.integer("quant_max") == 255;
}

bool is_depthwise(const Program& program, const Operator& op) {
  const auto& weight = program.values[std::size_t(op.inputs[1])];
  return op.name == "convolution" && op.integer("groups") == weight.sizes[0] && weight.sizes[1] == 1 && op.integer("groups") > 1;
}

std::span<const float> bias_of(const Program& program, const Operator& op) {
  if (op.inputs.size() < 3 || op.inputs[2] < 0) return {};
  const auto& bias = *program.values[std::size_t(op.inputs[2])].constant;
  return {bias.data.get(), bias.size};
}

/// Can the engine's own kernels take the layer's weights?
bool has_fixed_weights(const Program& program, const Operator& op) {
  return is_layer(op) && !transposed(op) && program.values[std::size_t(op.inputs[1])].constant &&
         program.values[std::size_t(op.inputs[1])].sizes.size() == (op.name == "linear" ? 2 : 4) &&
         (op.inputs.size() < 3 || op.inputs[2] < 0 || program.values[std::size_t(op.inputs[2])].constant);
}

void use_integers(const Program& program, Operator& layer, const Operator& rounding, const OnGrid& grid) {
  const auto& sizes = program.values[std::size_t(layer.inputs[1])].sizes;
  const auto scale = float(rounding.number("scale"));
  const auto zero = std::int32_t(rounding.integer("zero_point"));
  const auto bias = bias_of(program, layer);
  layer.int8_zero = zero;
  const bool image = layer.name == "convolution";
  const auto taps = image ? sizes[2] * sizes[3] : 1, depth = sizes[1], groups = image ? layer.integer("groups") : 1;
  if (image && is_depthwise(program, layer)) {
    layer.int8_depthwise = std::make_shared<kernels::Int8Depthwise>(
        kernels::pack_int8_depthwise(grid.values.data(), sizes[0], taps, grid.scales, scale, zero, bias));
    return;
  }
  const auto columns = sizes[0] / groups;
  for (std::int64_t g = 0; g < groups; ++g) {
    const auto first = std::size_t(g * columns), count = std::size_t(columns);
    layer.int8_matrices.push_back(std::make_shared<kernels::Int8Matrix>(kernels::pack_int8(
        grid.values.data() + g * columns * depth * taps, taps, depth, columns, 1, taps, depth * taps, std::span(grid.scales).subspan(first, count), scale,
        zero, bias.empty() ? bias : bias.subspan(first, count))));
  }
}

/// Layers between grids compute in integers. Who else takes a rounded value gets it as floats, from a rounding of its own.
void find_integer_layers(Program& program) {
  const auto users = program.consumers();
  std::vector<Operator> extra;
  for (std::size_t n = 0; n < program.operators.size(); ++n) {
    const auto rounding = program.operators[n];
    if (!is_rounding(rounding)) continue;
    std::vector<int> others;
    const auto value = rounding.outputs[0];
    std::string kind;  // of the layers that take the grid: they agree on the order in memory
    for (const int user : users[std::size_t(value)]) {
      auto& layer = program.operators[std::size_t(user)];
      std::optional<OnGrid> grid;
      if (has_fixed_weights(program, layer) && !layer.has("columns_first") && layer.inputs[0] == value && (kind.empty() || kind == layer.name))
        grid = on_grid(program.values[std::size_t(layer.inputs[1])]);
      if (grid) use_integers(program, layer, rounding, *grid), kind = layer.name;
      else others.push_back(user);
    }
    if (kind.empty()) continue;
    const bool floats = !others.empty() || value == program.logits;
    auto& made = program.operators[n];
    made.name = "quantise";
    if (!floats) {
      program.values[std::size_t(value)].grid = true;
      program.values[std::size_t(value)].channels_fastest = kind == "convolution";
      continue;
    }
    program.values.push_back(program.values[std::size_t(value)]);
    program.values.back().grid = true;
    program.values.back().channels_fastest = kind == "convolution";
    const int grid_value = int(program.values.size()) - 1;
    for (const int user : users[std::size_t(value)]) {
      auto& layer = program.operators[std::size_t(user)];
      if (!layer.int8_matrices.empty() || layer.int8_depthwise) layer.inputs[0] = grid_value;
    }
    made.outputs = {grid_value};
    extra.push_back(rounding);
  }
  for (auto& rounding : extra) {  // right behind what it rounds, before anybody takes it
    const auto at = std::ranges::find_if(program.operators, [&](const Operator& op) { return op.name == "quantise" && op.inputs == rounding.inputs; });
    program.operators.insert(at, std::move(rounding));
  }
}

/// One step of the chain behind a layer: true if its next operator went into it.
bool take_next(Program& program, std::size_t n, const std::vector<std::vector<int>>& users, std::vector<bool>& gone) {
  auto& layer = program.operators[n];
  const int out = layer.outputs[0];
  if (out == program.logits || users[std::size_t(out)].size() != 1) return false;
  const auto next = std::size_t(users[std::size_t(out)][0]);
  auto& op = program.operators[next];
  if (gone[next]) return false;
  if (const auto activation = activation_of(op)) {
    if (op.name == "gelu" && op.has("approximate_tanh")) return false;
    auto& slot = layer.residual >= 0 ? layer.after : layer.before;
    if (slot != Activation::kNone) return false;
    slot = *activation;
    if (op.name == "leaky_relu") layer.slope = op.number("negative_slope");
  } else if (op.name == "add" && op.inputs.size() == 2 && op.number("alpha") == 1 && layer.residual < 0) {
    const int other = op.inputs[op.inputs[0] == out ? 1 : 0];
    if (other == out || other < 0 || program.values[std::size_t(other)].sizes != program.values[std::size_t(out)].sizes ||
        program.values[std::size_t(other)].constant)
      return false;
    layer.residual = other;
  } else {
    return false;
  }
  layer.outputs = op.outputs;
  // The layer runs where the operator stood: by then the other summand is there.
  std::swap(program.operators[n], program.operators[next]);
  gone[n] = true;
  return true;
}

void fuse_chains(Program& program) {
  bool changed = true;
  while (changed) {
    changed = false;
    const auto users = program.consumers();
    std::vector<bool> gone(program.operators.size());
    for (std::size_t n = 0; n < program.operators.size(); ++n)
      if (!gone[n] && has_fixed_weights(program, program.operators[n])) {
        if (!take_next(program, n, users, gone)) continue;
        changed = true;
        break;  // the table of consumers is of the old order
      }
    std::size_t n = 0;
    std::erase_if(program.operators, [&](const Operator&) { return gone[n++]; });
  }
}

/// A layer writes its result in the steps that the next one wants.
void fuse_roundings(Program& program) {
  const auto users = program.consumers();
  std::vector<bool> gone(program.operators.size());
  for (auto& layer : program.operators) {
    if (!has_fixed_weights(program, layer)) continue;
    const auto& all = users[std::size_t(layer.outputs[0])];
    for (const int user : all) {
      const auto& rounding = program.operators[std::size_t(user)];
      if (rounding.name != "quantise" || layer.grid >= 0) continue;
      layer.grid = rounding.outputs[0];
      layer.grid_scale = float(rounding.number("scale"));
      layer.grid_zero = std::int32_t(rounding.integer("zero_point"));
      gone[std::size_t(user)] = true;
      if (all.size() == 1 && layer.outputs[0] != program.logits) layer.outputs[0] = -1;
      break;
    }
  }
  std::size_t n = 0;
  std::erase_if(program.operators, [&](const Operator&) { return gone[n++]; });
}

}  // namespace

std::vector<std::vector<int>> Program::consumers() const {
  std::vector<std::vector<int>> by_value(values.size());
  for (std::size_t n = 0; n < operators.size(); ++n) {
    std::set<int> taken(operators[n].inputs.begin(), operators[n].inputs.end());
    taken.insert(operators[n].residual);
    for (const int value : taken)
      if (value >= 0) by_value[std::size_t(value)].push_back(int(n));
  }
  return by_value;
}

void fuse(Program& program) {
  find_linear_layers(program);
  share_roundings(program);
  find_integer_layers(program);
  fuse_chains(program);
  fuse_roundings(program);
}

void pack_weights(Program& program) {
  for (auto& op : program.operators) {
    if (!has_fixed_weights(program, op)) continue;
    for (const auto& matrix : op.int8_matrices) program.weight_bytes += matrix->bytes();
    if (op.int8_depthwise) program.weight_bytes += op.int8_depthwise->bytes();
    if (!op.int8_matrices.empty() || op.int8_depthwise) continue;
    const auto& weight = program.values[std::size_t(op.inputs[1])];
    const auto& sizes = weight.sizes;
    const float* data = weight.constant->data.get();
    const auto bias = bias_of(program, op);
    if (op.has("columns_first")) {
      op.matrices.push_back(std::make_shared<kernels::PackedMatrix>(kernels::pack(data, 1, sizes[0], sizes[1], 0, sizes[1], 1, bias)));
    } else if (op.name == "linear") {
      op.matrices.push_back(std::make_shared<kernels::PackedMatrix>(kernels::pack(data, 1, sizes[1], sizes[0], 0, 1, sizes[1], bias)));
    } else if (is_depthwise(program, op)) {
      op.depthwise = std::make_shared<kernels::DepthwiseWeights>(kernels::pack_depthwise(data, sizes[0], sizes[2] * sizes[3], bias));
      program.weight_bytes += op.depthwise->bytes;
    } else {
      const auto groups = op.integer("groups"), columns = sizes[0] / groups, depth = sizes[1], taps = sizes[2] * sizes[3];
      for (std::int64_t g = 0; g < groups; ++g)
        op.matrices.push_back(std::make_shared<kernels::PackedMatrix>(
            kernels::pack(data + g * columns * depth * taps, taps, depth, columns, 1, taps, depth * taps,
                          bias.empty() ? bias : bias.subspan(std::size_t(g * columns), std::size_t(columns)))));
    }
    for (const auto& matrix : op.matrices) program.weight_bytes += matrix->bytes();
  }
}

}  // namespace preceptor::deploy
