#include "data/deal.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/random.h"

namespace preceptor::data {
namespace {

constexpr std::uint64_t kTries = 1000;

// log of Gamma(alpha). In logs, because at alpha = 1e-3 half of all draws are under 1e-300.
double log_gamma_draw(RandomStream& random, double alpha) {
  return std::log(random.gamma(alpha + 1)) + std::log(1 - random.uniform()) / alpha;
}

void draw_site(const PartitionOptions& options, std::uint64_t seed, std::size_t site,
               std::uint64_t attempt, Weights& logs) {
  RandomStream random(seed, "partition/shares", {site, attempt});
  if (options.method == "iid") return;
  const bool by_class = options.method == "dirichlet";
  double log_weight = 0;
  for (std::size_t c = 0; c < logs.size(); ++c) {
    if (c == 0 || by_class) log_weight = log_gamma_draw(random, options.alpha);
    logs[c][site] = log_weight;
  }
}

Weights from_logs(const Weights& logs) {
  Weights weights = logs;
  for (auto& row : weights) {
    const double top = *std::ranges::max_element(row);
    for (auto& w : row) w = std::exp(w - top);
  }
  return weights;
}

}  // namespace

Counts apportion(const Strata& available, const Weights& weights) {
  const std::size_t parts = weights.empty() ? 0 : weights.front().size();
  Counts counts(available.size(), std::vector<std::size_t>(parts));
  std::vector<double> owed(parts);
  std::vector<std::size_t> order;
  for (std::size_t c = 0; c < available.size(); ++c) {
    const double sum = std::accumulate(weights[c].begin(), weights[c].end(), 0.0);
    std::size_t left = available[c];
    order.clear();
    for (std::size_t p = 0; p < parts; ++p) {
      if (weights[c][p] <= 0) continue;
      const double exact = double(available[c]) * (weights[c][p] / sum);
      counts[c][p] = std::min(left, std::size_t(exact));
      left -= counts[c][p];
      owed[p] += exact - double(counts[c][p]);
      if (exact > double(counts[c][p])) order.push_back(p);
    }
    std::ranges::stable_sort(order, [&](auto a, auto b) { return owed[a] > owed[b]; });
    for (std::size_t i = 0; left > 0; ++i, --left) {
      const auto p = order[i % order.size()];
      ++counts[c][p];
      owed[p] -= 1;
    }
  }
  return counts;
}

std::vector<std::size_t> part_totals(const Counts& counts) {
  std::vector<std::size_t> totals(counts.empty() ? 0 : counts.front().size());
  for (const auto& row : counts)
    for (std::size_t p = 0; p < row.size(); ++p) totals[p] += row[p];
  return totals;
}

std::size_t fill_empty_parts(Counts& counts, const Weights& weights) {
  auto totals = part_totals(counts);
  std::size_t empty = 0;
  for (std::size_t p = 0; p < totals.size(); ++p) {
    if (totals[p] > 0) continue;
    const auto donor = std::size_t(std::ranges::max_element(totals) - totals.begin());
    if (totals[donor] < 2) {
      ++empty;
      continue;
    }
    std::size_t stratum = counts.size();
    for (std::size_t c = 0; c < counts.size(); ++c)
      if (counts[c][donor] > 0 && (stratum == counts.size() || weights[c][p] > weights[stratum][p]))
        stratum = c;
    --counts[stratum][donor], --totals[donor];
    ++counts[stratum][p], ++totals[p];
  }
  return empty;
}

Result<Weights> draw_weights(const PartitionOptions& options, const Strata& available,
                             std::uint64_t seed) {
  const auto sites = std::size_t(options.sites), minimum = std::size_t(options.minimum);
  const auto images = std::accumulate(available.begin(), available.end(), std::size_t{0});
  if (images / sites < minimum)
    return fail(Code::kInvalid,
                "data.partition: {} training images are too few for {} sites of at least {}; "
                "take fewer sites or a smaller minimum",
                images, sites, minimum);
  Weights logs(available.size(), std::vector<double>(sites));
  for (std::size_t s = 0; s < sites; ++s) draw_site(options, seed, s, 0, logs);
  for (std::uint64_t attempt = 1; attempt <= kTries; ++attempt) {
    auto weights = from_logs(logs);
    const auto totals = part_totals(apportion(available, weights));
    bool enough = true;
    for (std::size_t s = 0; s < sites; ++s) {
      if (totals[s] >= minimum) continue;
      enough = false;
      draw_site(options, seed, s, attempt, logs);
    }
    if (enough) return weights;
  }
  return fail(Code::kInvalid,
              "data.partition: {} draws gave some of the {} sites fewer than {} of the {} training "
              "images; raise alpha ({}), or take fewer sites or a smaller minimum",
              kTries, sites, minimum, images, options.alpha);
}

}  // namespace preceptor::data
