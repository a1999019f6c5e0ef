#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/result.h"

namespace preceptor::compression {

/// Scores of one class against the rest, counted in bins of [0, 1]: sums of hospitals' histograms
/// give the pooled AUC without anybody's scores.
struct ScoreHistogram {
  static constexpr std::size_t kBins = 64;
  std::array<std::uint64_t, kBins> positive{}, negative{};

  /// score: a probability; outside [0, 1] or NaN it counts as the nearest end, NaN as 0.
  void add(float score, bool is_positive);
  /// Area under the ROC curve, ties (within a bin) counted half (Mann-Whitney). nullopt: one side
  /// is empty.
  std::optional<double> auc() const;
  bool operator==(const ScoreHistogram&) const = default;
};

/// Probabilities [N, classes] row-major and labels [N] → one histogram for class 1 of two classes,
/// else one a class.
std::vector<ScoreHistogram> score_histograms(std::span<const float> probabilities,
                                             std::span<const std::int32_t> labels,
                                             std::size_t classes);
/// How many histograms a task of so many classes has.
std::size_t histograms_of(std::size_t classes);
/// Macro mean over classes that both sides of were seen; as MedMNIST's evaluator for two classes.
std::optional<double> pooled_auc(std::span<const ScoreHistogram> scores);

/// What a hospital says beside its update, as integers that are only ever added up: in Z_2^64 each
/// has room for 2^24 images and no sum of a cohort wraps. Under secure aggregation the words are
/// masked, so that the coordinator learns the sums alone.
struct Totals {
  static constexpr double kScale = double(1 << 20);  ///< of fixed-point members

  static constexpr std::uint64_t kMaxImages = 1 << 24;    ///< of a site

  std::uint64_t weight = 0;            ///< of the update in the mean, in units of the plan
  std::uint64_t samples = 0;           ///< training images that `loss` is the sum over
  double loss = 0;                     ///< samples · mean training loss, fixed point
  std::vector<ScoreHistogram> scores;  ///< of the received model on the site's validation split

  /// Words of an encoding with so many histograms.
  static std::size_t words(std::size_t histograms) {
    return 3 + 2 * ScoreHistogram::kBins * histograms;
  }
  /// Two's complement in Z_2^64.
  std::vector<std::uint64_t> encode() const;
  /// Of one site or of a sum. Error: kCorrupt, when the words are not as many as the histograms
  /// need.
  static Result<Totals> decode(std::span<const std::uint64_t> words, std::size_t histograms);

  double mean_loss() const { return samples > 0 ? loss / double(samples) : 0; }
};

}  // namespace preceptor::compression
