#pragma once
#include <cstdint>
#include <optional>
#include <span>

namespace preceptor::training {

/// How well one image's label map agrees with the truth: means over the foreground classes that occur in either map.
/// Where none occurs, both maps are empty and agree: Dice and IoU 1, no HD95.
struct SegmentationScore {
  double dice = 0, iou = 0;  ///< in [0, 1]; 0 for a class that only one map has
  /// Pixels. 95 % Hausdorff distance: of the two directed surface distances, from predicted to true and back, the
  /// larger 95th percentile (Maier-Hein 2024, doi:10.1038/s41592-023-02151-z), linearly interpolated. A surface is
  /// the pixels of a class with one of four neighbours outside it, or at the border of the image. A class that only
  /// one map has counts with the image's diagonal.
  std::optional<double> hd95;
};

/// predicted, truth: [height × width], row-major, class of each pixel with the background as 0; classes counts the
/// background, and 1 means a single map of logits, as 2 does. Linear in pixels and classes; thread-safe, torch-free.
/// Throws std::invalid_argument for maps of another size or a pixel of another class.
SegmentationScore score_masks(std::span<const std::uint8_t> predicted, std::span<const std::uint8_t> truth, int height, int width,
                              int classes);

}  // namespace preceptor::training
