#include "data/dataset.h"

#include <stdexcept>

namespace preceptor::data {

Dataset Dataset::subset(std::span<const std::size_t> index) const {
  Dataset part = like();
  part.pixels.reserve(index.size() * image_bytes());
  part.labels.reserve(index.size());
  for (const auto i : index) {
    const auto pixels_of = image(i);
    part.pixels.insert(part.pixels.end(), pixels_of.begin(), pixels_of.end());
    part.labels.push_back(labels.at(i));
    if (segmentation) {
      const auto mask_of = mask(i);
      part.masks.insert(part.masks.end(), mask_of.begin(), mask_of.end());
    }
  }
  return part;
}

Dataset Dataset::like() const {
  return {height, width, channels, classes, {}, {}, {}, segmentation};
}

void Dataset::append(const Dataset& other) {
  if (height != other.height || width != other.width || channels != other.channels ||
      classes != other.classes || segmentation != other.segmentation)
    throw std::logic_error("Dataset::append: another shape or other classes");
  pixels.insert(pixels.end(), other.pixels.begin(), other.pixels.end());
  labels.insert(labels.end(), other.labels.begin(), other.labels.end());
  masks.insert(masks.end(), other.masks.begin(), other.masks.end());
}

std::vector<std::size_t> Dataset::class_counts() const {
  std::vector<std::size_t> counts(classes.size());
  if (segmentation)
    for (const auto label : masks) ++counts.at(label);
  else
    for (const auto label : labels) ++counts.at(std::size_t(label));
  return counts;
}

}  // namespace preceptor::data
