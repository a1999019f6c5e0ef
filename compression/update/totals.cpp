#include "compression/update/totals.h"

#include <algorithm>
#include <cmath>

namespace preceptor::compression {

void ScoreHistogram::add(float score, bool is_positive) {
  double odds = score >= 1 ? kReach : -kReach;
  if (score > 0 && score < 1) odds = std::log(double(score) / (1 - double(score)));
  const auto bin = std::size_t((std::clamp(odds, -kReach, kReach) + kReach) / (2 * kReach) * kBins);
  ++(is_positive ? positive : negative)[std::min(bin, kBins - 1)];
}

std::optional<double> ScoreHistogram::auc() const {
  double below = 0, wins = 0, positives = 0;
  for (std::size_t bin = 0; bin < kBins; ++bin) {
    wins += double(positive[bin]) * (below + 0.5 * double(negative[bin]));
    below += double(negative[bin]);
    positives += double(positive[bin]);
  }
  if (positives == 0 || below == 0) return std::nullopt;
  return wins / (positives * below);
}

std::size_t histograms_of(std::size_t classes) { return classes == 2 ? 1 : classes; }

std::vector<ScoreHistogram> score_histograms(std::span<const float> probabilities,
                                             std::span<const std::int32_t> labels,
                                             std::size_t classes) {
  std::vector<ScoreHistogram> scores(histograms_of(classes));
  const std::size_t first = classes == 2 ? 1 : 0;
  for (std::size_t i = 0; i < labels.size(); ++i)
    for (std::size_t c = 0; c < scores.size(); ++c)
      scores[c].add(probabilities[i * classes + first + c], labels[i] == std::int32_t(first + c));
  return scores;
}

std::optional<double> pooled_auc(std::span<const ScoreHistogram> scores) {
  double sum = 0;
  int seen = 0;
  for (const auto& histogram : scores)
    if (const auto auc = histogram.auc()) sum += *auc, ++seen;
  if (seen == 0) return std::nullopt;
  return sum / seen;
}

std::vector<std::uint64_t> Totals::encode() const {
  const auto fixed = [](double value) { return std::uint64_t(std::int64_t(std::llrint(value * kScale))); };
  std::vector<std::uint64_t> words{weight, samples, fixed(loss)};
  words.reserve(Layout{fidelity.size(), scores.size()}.words());
  for (const auto& stage : fidelity) {
    words.push_back(fixed(stage.cosine));
    words.push_back(fixed(stage.norm_ratio));
  }
  for (const auto& histogram : scores) {
    words.insert(words.end(), histogram.positive.begin(), histogram.positive.end());
    words.insert(words.end(), histogram.negative.begin(), histogram.negative.end());
  }
  return words;
}

Result<Totals> Totals::decode(std::span<const std::uint64_t> words, const Layout& layout) {
  if (words.size() != layout.words())
    return fail(Code::kCorrupt, "totals of {} words; this job's have {}", words.size(),
                layout.words());
  const auto real = [](std::uint64_t word) { return double(std::int64_t(word)) / kScale; };
  Totals totals;
  totals.weight = words[0];
  totals.samples = words[1];
  totals.loss = real(words[2]);
  words = words.subspan(3);
  for (std::size_t s = 0; s < layout.stages; ++s, words = words.subspan(2))
    totals.fidelity.push_back({"", real(words[0]), real(words[1])});
  constexpr auto kBins = ScoreHistogram::kBins;
  for (std::size_t h = 0; h < layout.histograms; ++h) {
    auto& histogram = totals.scores.emplace_back();
    std::ranges::copy(words.subspan(2 * h * kBins, kBins), histogram.positive.begin());
    std::ranges::copy(words.subspan((2 * h + 1) * kBins, kBins), histogram.negative.begin());
  }
  return totals;
}

}  // namespace preceptor::compression
