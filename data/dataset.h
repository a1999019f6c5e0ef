#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace preceptor::data {

/// Images of one size in memory: uint8, [N, height, width, channels]. To classify: a class label
/// each. To segment: a class of each pixel, `classes[0]` being the background, and labels all 0.
/// A value; torch-free. A label is an index into `classes`.
struct Dataset {
  int height = 0, width = 0, channels = 0;  ///< pixels; channels is 1 (grey) or 3 (RGB)
  std::vector<std::string> classes;         ///< class names, by label
  std::vector<std::uint8_t> pixels;
  std::vector<std::int32_t> labels;
  std::vector<std::uint8_t> masks;  ///< [N, height, width]; empty: images are to be classified

  bool segmentation = false;  ///< there are masks, or would be if there were images

  std::size_t size() const { return labels.size(); }
  std::size_t image_bytes() const { return std::size_t(height) * width * channels; }
  std::span<const std::uint8_t> image(std::size_t i) const {
    return std::span(pixels).subspan(i * image_bytes(), image_bytes());
  }
  std::size_t mask_bytes() const { return std::size_t(height) * width; }
  std::span<const std::uint8_t> mask(std::size_t i) const {
    return std::span(masks).subspan(i * mask_bytes(), mask_bytes());
  }
  /// Images [index] in that order.
  Dataset subset(std::span<const std::size_t> index) const;
  /// Empty set of the same shape and classes.
  Dataset like() const;
  /// Appends the images of a set of the same shape.
  void append(const Dataset& other);
  /// Images of each class; of a segmentation set: pixels.
  std::vector<std::size_t> class_counts() const;
};

/// The three parts that every site has; they share no image (by hash).
struct Splits {
  Dataset train, validation, test;
};

}  // namespace preceptor::data
