#include "deploy/choose.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace preceptor::deploy {
namespace {

bool dominates(const Candidate& a, const Candidate& b) {
  const bool no_worse = a.metric >= b.metric && a.milliseconds <= b.milliseconds && a.mib <= b.mib;
  return no_worse && (a.metric > b.metric || a.milliseconds < b.milliseconds || a.mib < b.mib);
}

std::string rule_broken(const Candidate& c, const Budget& budget) {
  if (c.metric < budget.min_metric) return fmt::format("metric {:.3f} < {:.3f}", c.metric, budget.min_metric);
  if (c.milliseconds > budget.max_milliseconds) return fmt::format("{:.2f} ms > {:.2f} ms", c.milliseconds, budget.max_milliseconds);
  if (c.mib > budget.max_mib) return fmt::format("{:.2f} MiB > {:.2f} MiB", c.mib, budget.max_mib);
  return "";
}

}  // namespace

std::optional<std::size_t> choose(std::vector<Candidate>& candidates, const Budget& budget) {
  std::optional<std::size_t> best;
  const auto rank = [&](std::size_t i) { return std::tuple(-candidates[i].metric, candidates[i].milliseconds, candidates[i].mib); };
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    auto& c = candidates[i];
    c.frontier = std::ranges::none_of(candidates, [&](const Candidate& other) { return dominates(other, c); });
    c.why_not = rule_broken(c, budget);
    if (c.why_not.empty() && (!best || rank(i) < rank(*best))) best = i;
  }
  return best;
}

}  // namespace preceptor::deploy
