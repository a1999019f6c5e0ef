#include "compression/model/prune.h"

#include <spdlog/spdlog.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>

namespace preceptor::compression {
namespace {

using models::FlatModel;
using Counts = std::map<std::string, std::int64_t>;  ///< group → units

/// The group's units that stay, as few as `wanted`, or as the options' limits allow. `whole`: units before any step.
std::int64_t allowed(const Group& group, std::int64_t wanted, std::int64_t whole, const PruneOptions& options) {
  const auto step = options.round_to / std::gcd(std::int64_t(options.round_to), group.channels_a_unit);
  const bool rounds = group.units >= step;
  auto least = std::max(group.least, rounds ? step : 1);
  if (options.scope == "global") least = std::max(least, std::int64_t(std::ceil(double(whole) * (1 - options.max_layer_ratio) - 1e-9)));
  wanted = std::max(wanted, least);
  if (rounds) {
    const auto down = wanted / step * step;
    wanted = down >= least && 2 * (wanted - down) < step ? down : down + (wanted > down ? step : 0);
  }
  return std::min(wanted, group.units);
}

/// Units to keep of each group at this share of the whole.
std::vector<std::int64_t> wanted_units(const std::vector<Group>& groups, const std::vector<at::Tensor>& scores, const Counts& whole,
                                       double ratio, const PruneOptions& options) {
  std::vector<std::int64_t> wanted;
  if (options.scope == "uniform") {
    for (const auto& group : groups) wanted.push_back(std::int64_t(std::llround(double(whole.at(group.name)) * (1 - ratio))));
  } else {
    struct Unit {
      double score;
      std::size_t group;
    };
    std::vector<Unit> all;
    double before = 0;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto* score = scores[g].data_ptr<double>();
      for (std::int64_t u = 0; u < groups[g].units; ++u) all.push_back({score[u], g});
      wanted.push_back(groups[g].units);
      before += double(whole.at(groups[g].name));
    }
    std::ranges::stable_sort(all, {}, &Unit::score);
    auto left = std::int64_t(std::llround(double(all.size()) - before * (1 - ratio)));
    for (const auto& [score, g] : all) {
      if (left <= 0) break;
      const auto least = double(whole.at(groups[g].name)) * (1 - options.max_layer_ratio);
      if (double(wanted[g] - 1) < least - 1e-9 || wanted[g] <= groups[g].least) continue;
      --wanted[g], --left;
    }
  }
  for (std::size_t g = 0; g < groups.size(); ++g) wanted[g] = allowed(groups[g], wanted[g], whole.at(groups[g].name), options);
  return wanted;
}

/// By the group's mean, so that groups compare.
Result<std::vector<at::Tensor>> scores_of(FlatModel& model, const Channels& channels, const PruneOptions& options, const Evidence& evidence) {
  const auto* make = TRY(criteria().find(options.criterion));
  const auto criterion = TRY((*make)(model, evidence));
  torch::NoGradGuard no_grad;
  std::vector<at::Tensor> scores;
  for (const auto& group : channels.groups) {
    const auto score = criterion->scores(group).to(torch::kCPU, torch::kFloat64).contiguous();
    scores.push_back(score / std::max(score.mean().item<double>(), 1e-300));
  }
  return scores;
}

}  // namespace

Kept keep_best(const std::vector<Group>& groups, const std::vector<at::Tensor>& scores, const std::vector<std::int64_t>& wanted) {
  Kept kept;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    std::vector<std::size_t> order(std::size_t(groups[g].units));
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto* score = scores[g].data_ptr<double>();
    std::ranges::stable_sort(order, std::greater{}, [&](std::size_t u) { return score[u]; });
    std::vector<bool> of_group(order.size());
    for (std::int64_t i = 0; i < wanted[g]; ++i) of_group[order[std::size_t(i)]] = true;
    kept.insert(kept.end(), of_group.begin(), of_group.end());
  }
  return kept;
}

Result<Pruned> prune(FlatModel& model, const PruneOptions& options, const Evidence& evidence, const FineTune& fine_tune) {
  PruneReport report;
  report.parameters_before = std::int64_t(model.space().trainable());
  report.macs_before = models::count_macs(model.network(), model.spec().task);
  Counts whole;
  std::optional<FlatModel> smaller;
  for (int step = 1; step <= options.steps; ++step) {
    auto& current = smaller ? *smaller : model;
    const auto channels = TRY(find_channels(current));
    if (channels.groups.empty())
      return fail(Code::kInvalid, "{}: no channels can be removed{}", model.spec().model.name,
                  channels.unprunable.empty() ? "" : "; " + channels.unprunable[0].name + ": " + channels.unprunable[0].reason);
    if (step == 1) {
      report.unprunable = channels.unprunable;
      for (const auto& group : channels.groups) {
        whole[group.name] = group.units;
        report.layers.push_back({group.name, group.units * group.channels_a_unit, group.units * group.channels_a_unit});
      }
      for (const auto& [name, count, reason] : channels.unprunable) spdlog::debug("{}: its {} channels stay: {}", name, count, reason);
    }
    for (const auto& group : channels.groups) whole.try_emplace(group.name, group.units);
    const auto scores = TRY(scores_of(current, channels, options, evidence));
    const auto wanted = wanted_units(channels.groups, scores, whole, options.ratio * step / options.steps, options);
    for (std::size_t g = 0; g < wanted.size(); ++g)
      for (auto& layer : report.layers)
        if (layer.name == channels.groups[g].name) layer.after = wanted[g] * channels.groups[g].channels_a_unit;
    smaller = TRY(cut(current, channels, keep_best(channels.groups, scores, wanted)));
    if (fine_tune && step < options.steps) TRY(fine_tune(*smaller, step));
  }
  report.parameters_after = std::int64_t(smaller->space().trainable());
  report.macs_after = models::count_macs(smaller->network(), smaller->spec().task);
  return Pruned{std::move(*smaller), std::move(report)};
}

}  // namespace preceptor::compression
