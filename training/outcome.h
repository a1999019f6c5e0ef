#pragma once
#include "training/metrics.h"
#include "training/training.h"

namespace preceptor::training {

/// What a network makes of a set, image by image: all that metrics, intervals and paired tests need, and small.
/// A value, torch-free once made.
struct Outcome {
  std::vector<float> probabilities;       ///< softmax, [N, classes] row-major; empty for segmentation
  std::vector<std::int32_t> labels;       ///< [N]; empty for segmentation
  std::size_t classes = 2;
  std::vector<SegmentationScore> scores;  ///< [N]; empty for classification
};

/// Un-augmented images; the network is in evaluation mode.
Outcome outcome_of(const Network& network, const data::Dataset& dataset, int batch = 128);
Outcome outcome_of(models::FlatModel& model, const data::Dataset& dataset, int batch = 128);

/// As for Predictions and SegmentationScores.
Metrics measure(const Outcome& outcome, std::uint64_t seed);
std::optional<PairedTest> compare(const Outcome& a, const Outcome& b, std::uint64_t seed);

/// One figure, the higher the better: AUC, where it is not defined accuracy; Dice. 0 without images.
double headline(const Outcome& outcome);

}  // namespace preceptor::training
