#include "compression/update/totals.h"

#include <algorithm>
#include <cmath>

namespace preceptor::compression {

void ScoreHistogram::add(float score, bool is_positive) {
  const auto bin = score >= 1 ? kBins - 1 : score > 0 ? std::size_t(score * float(kBins)) : 0;
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
  std::vector<std::uint64_t> words{weight, samples,
                                   std::uint64_t(std::int64_t(std::llrint(loss * kScale)))};
  words.reserve(Totals::words(scores.size()));
  for (const auto& histogram : scores) {
    words.insert(words.end(), histogram.positive.begin(), histogram.positive.end());
    words.insert(words.end(), histogram.negative.begin(), histogram.negative.end());
  }
  return words;
}

Result<Totals> Totals::decode(std::span<const std::uint64_t> words, std::size_t histograms) {
  if (words.size() != Totals::words(histograms))
    return fail(Code::kCorrupt, "totals of {} words; {} histograms need {}", words.size(),
                histograms, Totals::words(histograms));
  Totals totals;
  totals.weight = words[0];
  totals.samples = words[1];
  totals.loss = double(std::int64_t(words[2])) / kScale;
  constexpr auto kBins = ScoreHistogram::kBins;
  for (std::size_t h = 0; h < histograms; ++h) {
    auto& histogram = totals.scores.emplace_back();
    std::ranges::copy(words.subspan(3 + 2 * h * kBins, kBins), histogram.positive.begin());
    std::ranges::copy(words.subspan(3 + (2 * h + 1) * kBins, kBins), histogram.negative.begin());
  }
  return totals;
}

}  // namespace preceptor::compression
