#include "compression/model/low_rank.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "compression/model/restructure.h"
#include "models/structure.h"

namespace preceptor::compression {
namespace {

using models::Ranks;

constexpr std::int64_t kRankSteps = 64;  ///< ranks of a k×k convolution that are tried, of either side
constexpr int kHalvings = 60;            ///< of the price of a weight

/// Unfolding of a weight by its output (0) or input (1) channels: [channels, the rest], float64.
at::Tensor unfold(const at::Tensor& weight, std::int64_t mode) { return weight.to(torch::kFloat64).transpose(0, mode).flatten(1); }

/// Squared singular values of a matrix, largest first, and the vectors on its left as columns.
struct Spectrum {
  at::Tensor squares, vectors;
};
Spectrum spectrum(const at::Tensor& matrix) {
  const auto [values, vectors] = torch::linalg_eigh(matrix.mm(matrix.t()));  // ascending
  return {values.flip({0}).clamp_min(0), vectors.flip({1})};
}

/// loss[r]: share of the energy beyond the first r, r = 0 … count.
std::vector<double> losses(const at::Tensor& squares) {
  std::vector<double> loss(std::size_t(squares.numel()) + 1);
  const auto* value = squares.data_ptr<double>();
  for (std::size_t r = loss.size() - 1; r > 0; --r) loss[r - 1] = loss[r] + value[r - 1];
  const double all = std::max(loss[0], 1e-300);
  for (auto& share : loss) share /= all;
  return loss;
}

/// A way to write a layer: ranks of 0 as it is.
struct Choice {
  Ranks ranks;
  std::size_t weights = 0;
  double loss = 0;  ///< share of the energy, at most
};

/// All choices with fewer weights than the layer, and the layer itself, which comes first.
std::vector<Choice> choices_of(const at::Tensor& weight) {
  const auto out = weight.size(0), in = weight.size(1), taps = weight.numel() / (out * in), whole = weight.numel();
  std::vector<Choice> choices{{{}, std::size_t(whole), 0}};
  const auto by_out = losses(spectrum(unfold(weight, 0)).squares);
  if (taps == 1) {
    for (std::int64_t r = 1; r <= std::min(out, in) && r * (out + in) < whole; ++r)
      choices.push_back({{r, 0}, std::size_t(r * (out + in)), by_out[std::size_t(r)]});
    return choices;
  }
  const auto by_in = losses(spectrum(unfold(weight, 1)).squares);
  const auto step = [](std::int64_t channels) { return std::max<std::int64_t>(1, channels / kRankSteps); };
  for (auto a = step(out); a <= out; a += step(out))
    for (auto b = step(in); b <= in; b += step(in)) {
      const auto weights = in * b + b * a * taps + a * out;
      // Both truncations together lose at most the sum of what each loses.
      if (weights < whole) choices.push_back({{a, b}, std::size_t(weights), by_out[std::size_t(a)] + by_in[std::size_t(b)]});
    }
  return choices;
}

Choice fewest_weights(const std::vector<Choice>& choices, double loss) {
  auto best = choices.front();
  for (const auto& choice : choices)
    if (choice.loss <= loss && choice.weights < best.weights) best = choice;
  return best;
}

Choice cheapest(const std::vector<Choice>& choices, double price) {
  return *std::ranges::min_element(choices, {}, [&](const Choice& c) { return c.loss + price * double(c.weights); });
}

using Candidates = std::map<std::string, std::vector<Choice>>;
using Chosen = std::map<std::string, Choice>;

Chosen at_price(const Candidates& candidates, double price) {
  Chosen chosen;
  for (const auto& [name, choices] : candidates) chosen[name] = cheapest(choices, price);
  return chosen;
}

/// The lowest price of a weight at which at most `wanted` of the candidates' weights are left.
Result<Chosen> within_budget(const Candidates& candidates, std::size_t others, double budget, std::size_t all) {
  const auto weights = [&](const Chosen& chosen) {
    return std::accumulate(chosen.begin(), chosen.end(), others, [](std::size_t sum, const auto& c) { return sum + c.second.weights; });
  };
  const double wanted = budget * double(all);
  double low = 0, high = 1;  // at a price of 1 a weight costs more than a whole layer's energy
  if (double(weights(at_price(candidates, high))) > wanted)
    return fail(Code::kInvalid, "low rank: budget {:g} cannot be met; {:.3f} of the parameters are left at the lowest ranks", budget,
                double(weights(at_price(candidates, high))) / double(all));
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = (low + high) / 2;
    (double(weights(at_price(candidates, middle))) <= wanted ? high : low) = middle;
  }
  return at_price(candidates, high);
}

bool is_grouped(const torch::nn::Module& layer) {
  const auto* conv = layer.as<torch::nn::Conv2dImpl>();
  return conv && conv->options.groups() != 1;
}

std::string text_of(const Ranks& ranks) { return ranks.in > 0 ? fmt::format("{}, {}", ranks.out, ranks.in) : std::to_string(ranks.out); }

/// The structure with the layers factorised: shapes of a pruned one's factors take the place of its own.
Result<models::StructureOptions> with_factors(const models::FlatModel& model, const std::map<std::string, Ranks>& ranks,
                                              const std::map<std::string, at::Tensor>& factors) {
  auto structure = model.spec().structure;
  for (const auto& [name, rank] : ranks) {
    structure.low_rank[name] = text_of(rank);
    structure.shapes.erase(name + ".weight");
    structure.shapes.erase(name + ".bias");
  }
  auto whole = structure;
  whole.shapes.clear();  // shapes of some of the layers alone would not fit each other
  const auto network = TRY(models::build({model.spec().model, model.spec().task, whole}));
  const auto unpruned = network->named_parameters();
  for (const auto& [name, tensor] : factors)
    if (unpruned[name].sizes() != tensor.sizes()) structure.shapes[name] = models::shape_text(tensor.sizes());
  return structure;
}

}  // namespace

Factors decompose(const at::Tensor& weight, const Ranks& ranks, int iterations) {
  torch::NoGradGuard no_grad;
  const auto out = weight.size(0), in = weight.size(1);
  const double all = std::max(weight.to(torch::kFloat64).square().sum().item<double>(), 1e-300);
  auto left = spectrum(unfold(weight, 0)).vectors.narrow(1, 0, ranks.out);  // [out, r]
  if (ranks.in == 0) {
    const auto rows = left.t().mm(unfold(weight, 0));  // [r, in]
    const auto balance = rows.norm(2, {1}, /*keepdim=*/true).sqrt().clamp_min(1e-12);  // of both factors' norms
    auto shape = weight.sizes().vec();
    shape[0] = ranks.out;
    const auto down = (rows / balance).view(shape).to(weight.dtype());
    shape[0] = out, shape[1] = ranks.out;
    return {down, {}, (left * balance.t()).view(shape).to(weight.dtype()), rows.square().sum().item<double>() / all};
  }
  auto right = spectrum(unfold(weight, 1)).vectors.narrow(1, 0, ranks.in);  // [in, r]
  const auto project = [&](const at::Tensor& tensor, const at::Tensor& basis, std::int64_t mode) {
    return torch::tensordot(tensor, basis, {mode}, {0}).movedim(-1, mode);
  };
  const auto full = weight.to(torch::kFloat64);
  for (int i = 0; i < iterations; ++i) {
    left = spectrum(unfold(project(full, right, 1), 0)).vectors.narrow(1, 0, ranks.out);
    right = spectrum(unfold(project(full, left, 0), 1)).vectors.narrow(1, 0, ranks.in);
  }
  const auto core = project(project(full, left, 0), right, 1);
  return {right.t().reshape({ranks.in, in, 1, 1}).to(weight.dtype()), core.contiguous().to(weight.dtype()),
          left.reshape({out, ranks.out, 1, 1}).to(weight.dtype()), core.square().sum().item<double>() / all};
}

Result<LowRankModel> factorise(models::FlatModel& model, const LowRankOptions& options) {
  const auto& spec = model.spec();
  if (!spec.structure.lora.empty() || !spec.structure.int8.empty())
    return fail(Code::kInvalid, "low rank: this {} has LoRA or int8 layers; factorise it before that", spec.model.name);
  torch::NoGradGuard no_grad;
  auto whole = TRY(fused(model));
  auto tensors = tensors_of(whole);
  Candidates candidates;
  auto others = whole.space().trainable();
  for (const auto& [name, layer] : models::adaptable_layers(whole.network())) {
    const auto& weight = tensors.at(name + ".weight");
    if (begins_with(name, options.keep) || weight.numel() < options.minimum || is_grouped(*layer)) continue;
    candidates[name] = choices_of(weight.to(torch::kCPU));
    others -= std::size_t(weight.numel());
  }
  Chosen chosen;
  if (options.budget > 0)
    chosen = TRY(within_budget(candidates, others, options.budget, model.space().trainable()));
  else
    for (const auto& [name, choices] : candidates) chosen[name] = fewest_weights(choices, 1 - options.energy);
  std::vector<LowRankLayer> layers;
  std::map<std::string, Ranks> ranks;
  std::map<std::string, at::Tensor> factors;
  for (const auto& [name, choice] : chosen) {
    if (choice.ranks.out == 0) continue;
    const auto& weight = tensors.at(name + ".weight");
    const auto made = decompose(weight.to(torch::kCPU), choice.ranks, options.iterations);
    ranks[name] = choice.ranks;
    factors[name + ".down.weight"] = made.down;
    if (made.core.defined()) factors[name + ".core.weight"] = made.core;
    factors[name + ".up.weight"] = made.up;
    if (tensors.contains(name + ".bias")) factors[name + ".up.bias"] = tensors.at(name + ".bias");
    layers.push_back({name, choice.ranks, made.energy, std::size_t(weight.numel()), choice.weights});
  }
  const auto structure = TRY(with_factors(whole, ranks, factors));
  auto made = TRY(restructured(whole, structure));
  auto target = tensors_of(made);
  for (const auto& [name, tensor] : factors) target.at(name).copy_(tensor);
  return LowRankModel{std::move(made), std::move(layers)};
}

}  // namespace preceptor::compression
