#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "training/segmentation_metrics.h"

namespace preceptor::training {

/// A metric and its 95 % interval, by percentile bootstrap over images (Efron 1979), 1,000 resamples.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

/// Probabilities [N, classes], row-major, and the true labels [N]; NaN counts as 0. Borrows; torch-free.
struct Predictions {
  std::span<const float> probabilities;
  std::span<const std::int32_t> labels;
  std::size_t classes = 2;
};

/// nullopt: the set cannot tell (no image, or one class only), or is for another task.
struct Metrics {
  std::size_t images = 0;
  std::optional<Estimate> auc;          ///< macro one-vs-rest, ties averaged; two classes: of class 1, as MedMNIST's evaluator
  std::optional<Estimate> accuracy;     ///< argmax
  std::optional<Estimate> sensitivity;  ///< recall: of class 1 for two classes, else macro
  std::optional<Estimate> specificity;  ///< of class 1 for two classes, else macro one-vs-rest
  std::optional<Estimate> dice;  ///< of segmentation: mean over images of SegmentationScore's
  std::optional<Estimate> iou;   ///< likewise
  std::optional<Estimate> hd95;  ///< pixels; over the images where it is defined
  std::optional<Estimate> ece;          ///< expected calibration error, 15 equal bins of confidence (Guo 2017, arXiv:1706.04599)
};

/// The resamples come from RandomStream(seed, "bootstrap").
Metrics measure(const Predictions& predictions, std::uint64_t seed, int resamples = 1000);

Metrics measure(std::span<const SegmentationScore> scores, std::uint64_t seed, int resamples = 1000);

std::optional<double> auc(const Predictions& predictions);
std::optional<double> accuracy(const Predictions& predictions);

/// Is model b better than a on the same images? Differences b − a of one metric over paired resamples.
struct PairedTest {
  std::string metric;              ///< "auc", or "accuracy" where auc is not defined; "dice"
  Estimate difference;             ///< b − a
  double p_value = 1;              ///< two-sided: twice the smaller share of resamples on one side of zero
};
std::optional<PairedTest> compare(const Predictions& a, const Predictions& b, std::uint64_t seed, int resamples = 2000);
std::optional<PairedTest> compare(std::span<const SegmentationScore> a, std::span<const SegmentationScore> b, std::uint64_t seed,
                                  int resamples = 2000);

}  // namespace preceptor::training
