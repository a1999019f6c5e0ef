#include "training/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "common/random.h"

namespace preceptor::training {
namespace {

using Counts = std::vector<std::uint32_t>;  ///< how often each image is in a resample
using Statistic = std::optional<double>;

/// What a diverged model says counts as no confidence at all; a NaN would break the order of a sort.
float known(float probability) { return std::isnan(probability) ? 0 : probability; }

/// One class against the rest, images sorted by score once, so that a resample costs one pass.
class RankedClass {
 public:
  RankedClass(const Predictions& p, std::size_t positive) : order_(p.labels.size()), group_(p.labels.size()), positive_(p.labels.size()) {
    const auto score = [&](std::size_t i) { return known(p.probabilities[i * p.classes + positive]); };
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::ranges::sort(order_, {}, [&](std::size_t i) { return std::pair(score(i), i); });
    for (std::size_t k = 0; k < order_.size(); ++k) {
      group_[k] = k > 0 && score(order_[k]) == score(order_[k - 1]) ? group_[k - 1] : k;
      positive_[k] = p.labels[order_[k]] == std::int32_t(positive);
    }
  }
  /// Mann-Whitney, ties count half.
  Statistic auc(const Counts& counts) const {
    double below = 0, wins = 0, positives = 0;
    for (std::size_t k = 0; k < order_.size();) {
      double tied_negatives = 0, tied_positives = 0;
      for (const auto start = group_[k]; k < order_.size() && group_[k] == start; ++k)
        (positive_[k] ? tied_positives : tied_negatives) += counts[order_[k]];
      wins += tied_positives * (below + 0.5 * tied_negatives);
      below += tied_negatives;
      positives += tied_positives;
    }
    if (positives == 0 || below == 0) return std::nullopt;
    return wins / (positives * below);
  }

 private:
  std::vector<std::size_t> order_, group_;
  std::vector<bool> positive_;
};

class Evaluator {
 public:
  explicit Evaluator(const Predictions& p) : p_(p), predicted_(p.labels.size()), confidence_(p.labels.size()) {
    for (std::size_t i = 0; i < predicted_.size(); ++i) {
      const auto row = p.probabilities.subspan(i * p.classes, p.classes);
      const auto best = std::ranges::max_element(row, {}, known);
      predicted_[i] = std::int32_t(best - row.begin());
      confidence_[i] = known(*best);
    }
    for (std::size_t c = p.classes == 2 ? 1 : 0; c < p.classes; ++c) ranked_.emplace_back(p, c);
  }

  Statistic auc(const Counts& counts) const {
    return mean(ranked_.size(), [&](std::size_t c) { return ranked_[c].auc(counts); });
  }
  Statistic accuracy(const Counts& counts) const {
    double right = 0, all = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      right += predicted_[i] == p_.labels[i] ? counts[i] : 0;
      all += counts[i];
    }
    return all > 0 ? Statistic(right / all) : std::nullopt;
  }
  Statistic sensitivity(const Counts& counts) const {
    return per_class([&](std::int32_t c) { return rate(counts, c, true); });
  }
  Statistic specificity(const Counts& counts) const {
    return per_class([&](std::int32_t c) { return rate(counts, c, false); });
  }
  Statistic ece(const Counts& counts) const {
    constexpr std::size_t kBins = 15;
    std::array<double, kBins> confidence{}, right{};
    double all = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      const auto bin = std::min(kBins - 1, std::size_t(confidence_[i] * kBins));
      confidence[bin] += double(counts[i]) * confidence_[i];
      right[bin] += predicted_[i] == p_.labels[i] ? counts[i] : 0;
      all += counts[i];
    }
    if (all == 0) return std::nullopt;
    double sum = 0;
    for (std::size_t b = 0; b < kBins; ++b) sum += std::abs(confidence[b] - right[b]);
    return sum / all;
  }

 private:
  template <class F>
  static Statistic mean(std::size_t count, F&& each) {
    double sum = 0;
    int defined = 0;
    for (std::size_t c = 0; c < count; ++c)
      if (const auto value = each(c)) sum += *value, ++defined;
    return defined ? Statistic(sum / defined) : std::nullopt;
  }
  template <class F>
  Statistic per_class(F&& each) const {
    if (p_.classes == 2) return each(1);
    return mean(p_.classes, [&](std::size_t c) { return each(std::int32_t(c)); });
  }
  /// Share of the images of class c (or, negative: of the other classes) that are told so.
  Statistic rate(const Counts& counts, std::int32_t c, bool positive) const {
    double right = 0, all = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      if ((p_.labels[i] == c) != positive) continue;
      all += counts[i];
      right += (predicted_[i] == c) == positive ? counts[i] : 0;
    }
    return all > 0 ? Statistic(right / all) : std::nullopt;
  }

  const Predictions& p_;
  std::vector<std::int32_t> predicted_;
  std::vector<float> confidence_;
  std::vector<RankedClass> ranked_;
};

Counts resample(std::size_t size, RandomStream& random) {
  Counts counts(size, 0);
  for (std::size_t i = 0; i < size; ++i) ++counts[random.below(size)];
  return counts;
}

double percentile(std::vector<double>& sorted, double share) {
  const double at = share * double(sorted.size() - 1);
  const auto low = std::size_t(at);
  const auto high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (at - double(low)) * (sorted[high] - sorted[low]);
}

/// The interval of samples around the value; just the value where no resample could tell.
Estimate interval(double value, std::vector<double>& samples) {
  if (samples.empty()) return {value, value, value};
  std::ranges::sort(samples);
  return {value, percentile(samples, 0.025), percentile(samples, 0.975)};
}

/// Mean of one figure over a resample, of the images where it is defined.
template <class Figure>
Statistic weighted_mean(std::span<const SegmentationScore> scores, const Counts& counts, Figure&& figure) {
  double sum = 0, all = 0;
  for (std::size_t i = 0; i < scores.size(); ++i)
    if (const auto value = figure(scores[i])) sum += counts[i] * *value, all += counts[i];
  return all > 0 ? Statistic(sum / all) : std::nullopt;
}

}  // namespace

std::optional<double> auc(const Predictions& p) { return Evaluator(p).auc(Counts(p.labels.size(), 1)); }
std::optional<double> accuracy(const Predictions& p) { return Evaluator(p).accuracy(Counts(p.labels.size(), 1)); }

Metrics measure(const Predictions& p, std::uint64_t seed, int resamples) {
  using Measure = Statistic (Evaluator::*)(const Counts&) const;
  static constexpr Measure kMeasures[] = {&Evaluator::auc, &Evaluator::accuracy, &Evaluator::sensitivity, &Evaluator::specificity, &Evaluator::ece};
  Metrics metrics;
  std::optional<Estimate>* const targets[] = {&metrics.auc, &metrics.accuracy, &metrics.sensitivity, &metrics.specificity, &metrics.ece};
  metrics.images = p.labels.size();
  const Evaluator evaluator(p);
  std::array<std::vector<double>, 5> samples;
  RandomStream random(seed, "bootstrap");
  for (int r = 0; r < resamples && !p.labels.empty(); ++r) {
    const auto counts = resample(p.labels.size(), random);
    for (std::size_t m = 0; m < 5; ++m)
      if (const auto value = (evaluator.*kMeasures[m])(counts)) samples[m].push_back(*value);
  }
  const Counts once(p.labels.size(), 1);
  for (std::size_t m = 0; m < 5; ++m)
    if (const auto value = (evaluator.*kMeasures[m])(once)) *targets[m] = interval(*value, samples[m]);
  return metrics;
}

Metrics measure(std::span<const SegmentationScore> scores, std::uint64_t seed, int resamples) {
  using Measure = Statistic (*)(const SegmentationScore&);
  static constexpr Measure kMeasures[] = {[](const SegmentationScore& s) { return Statistic(s.dice); },
                                          [](const SegmentationScore& s) { return Statistic(s.iou); },
                                          [](const SegmentationScore& s) { return s.hd95; }};
  Metrics metrics;
  metrics.images = scores.size();
  std::optional<Estimate>* const targets[] = {&metrics.dice, &metrics.iou, &metrics.hd95};
  std::array<std::vector<double>, 3> samples;
  RandomStream random(seed, "bootstrap");
  for (int r = 0; r < resamples && !scores.empty(); ++r) {
    const auto counts = resample(scores.size(), random);
    for (std::size_t m = 0; m < 3; ++m)
      if (const auto value = weighted_mean(scores, counts, kMeasures[m])) samples[m].push_back(*value);
  }
  const Counts once(scores.size(), 1);
  for (std::size_t m = 0; m < 3; ++m)
    if (const auto value = weighted_mean(scores, once, kMeasures[m])) *targets[m] = interval(*value, samples[m]);
  return metrics;
}

namespace {

/// Paired bootstrap of a difference, given as a function of how often each image is drawn.
template <class Difference>
std::optional<PairedTest> paired(const char* metric, std::size_t images, Difference&& difference, std::uint64_t seed, int resamples) {
  const auto observed = difference(Counts(images, 1));
  if (!observed) return std::nullopt;
  RandomStream random(seed, "paired-bootstrap");
  std::vector<double> samples;
  double above = 0, below = 0;
  for (int r = 0; r < resamples; ++r) {
    const auto value = difference(resample(images, random));
    if (!value) continue;
    samples.push_back(*value);
    above += *value > 0 ? 1 : *value == 0 ? 0.5 : 0;
    below += *value < 0 ? 1 : *value == 0 ? 0.5 : 0;
  }
  PairedTest test{metric, interval(*observed, samples), 1};
  // One is added to both sides: no finite bootstrap can show p = 0 (Davison & Hinkley 1997, §4.2).
  if (!samples.empty()) test.p_value = std::min(1.0, 2 * (std::min(above, below) + 1) / (double(samples.size()) + 1));
  return test;
}

}  // namespace

std::optional<PairedTest> compare(const Predictions& a, const Predictions& b, std::uint64_t seed, int resamples) {
  const Evaluator first(a), second(b);
  const bool ranked = first.auc(Counts(a.labels.size(), 1)).has_value();
  const auto difference = [&](const Counts& counts) -> Statistic {
    const auto x = ranked ? first.auc(counts) : first.accuracy(counts);
    const auto y = ranked ? second.auc(counts) : second.accuracy(counts);
    if (!x || !y) return std::nullopt;
    return *y - *x;
  };
  return paired(ranked ? "auc" : "accuracy", a.labels.size(), difference, seed, resamples);
}

std::optional<PairedTest> compare(std::span<const SegmentationScore> a, std::span<const SegmentationScore> b, std::uint64_t seed,
                                  int resamples) {
  const auto dice = [](const SegmentationScore& s) { return Statistic(s.dice); };
  const auto difference = [&](const Counts& counts) -> Statistic {
    const auto x = weighted_mean(a, counts, dice), y = weighted_mean(b, counts, dice);
    if (!x || !y) return std::nullopt;
    return *y - *x;
  };
  return paired("dice", a.size(), difference, seed, resamples);
}

}  // namespace preceptor::training
