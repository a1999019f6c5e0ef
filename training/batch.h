#pragma once
#include <ATen/core/Tensor.h>

#include "common/random.h"
#include "data/dataset.h"
#include "training/options.h"

namespace preceptor::training {

/// Images on their way into a network.
struct Batch {
  at::Tensor images;  ///< [B, C, S, S] float32 in [-1, 1], channels_last
  at::Tensor labels;  ///< what is to be told: classes [B] int64; of a segmentation set, of each pixel: [B, S, S]
  std::span<const std::size_t> index;  ///< [B], into the data set
  int view = 0;       ///< which augmentation of each image this is
};

/// The preprocessing contract: pixel p becomes p / 127.5 − 1 (MedMNIST's mean 0.5, deviation 0.5).
/// Draws nothing.
Batch make_batch(const data::Dataset& dataset, std::span<const std::size_t> index);

/// The same after a random change of each image. View v of image i is a function of (seed, i, v) alone,
/// so a teacher that saw it once need not see it again.
Batch make_batch(const data::Dataset& dataset, std::span<const std::size_t> index, const AugmentOptions& augment,
                 std::uint64_t seed, int view);

/// One image of any size by the same contract: pixels [H, W, channels] → [channels, H, W].
at::Tensor normalised(std::span<const std::uint8_t> pixels, int height, int width, int channels);

}  // namespace preceptor::training
