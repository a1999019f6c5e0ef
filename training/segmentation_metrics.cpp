#include "training/segmentation_metrics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace preceptor::training {
namespace {

constexpr double kNever = INFINITY;

struct Image {
  std::size_t height, width;
  std::size_t pixels() const { return height * width; }
};

/// The pixels of class `label` that touch another class or the border.
std::vector<std::uint8_t> surface(std::span<const std::uint8_t> map, Image image, std::uint8_t label) {
  std::vector<std::uint8_t> edge(image.pixels());
  for (std::size_t y = 0, i = 0; y < image.height; ++y)
    for (std::size_t x = 0; x < image.width; ++x, ++i)
      edge[i] = map[i] == label && (y == 0 || x == 0 || y + 1 == image.height || x + 1 == image.width ||
                                    map[i - image.width] != label || map[i - 1] != label || map[i + 1] != label ||
                                    map[i + image.width] != label);
  return edge;
}

/// Replaces one row of squared vertical distances by min over q of (x − q)² + row[q]: the lower envelope of parabolas.
/// The vectors are room to work in.
void lower_envelope(std::span<double> row, std::vector<std::size_t>& apex, std::vector<double>& start,
                    std::vector<double>& height) {
  apex.clear(), start.clear(), height.clear();
  for (std::size_t q = 0; q < row.size(); ++q) {
    if (row[q] == kNever) continue;
    double from = -INFINITY;  // where this parabola goes below the last one
    while (!apex.empty()) {
      const double p = double(apex.back()), x = double(q);
      from = (row[q] + x * x - height.back() - p * p) / (2 * (x - p));
      if (from > start.back()) break;
      apex.pop_back(), start.pop_back(), height.pop_back();
      from = -INFINITY;
    }
    apex.push_back(q), start.push_back(from), height.push_back(row[q]);
  }
  if (apex.empty()) return;
  for (std::size_t x = 0, k = 0; x < row.size(); ++x) {
    while (k + 1 < apex.size() && start[k + 1] < double(x)) ++k;
    const double away = double(x) - double(apex[k]);
    row[x] = away * away + height[k];
  }
}

/// Squared Euclidean distance of every pixel to the nearest marked one, exact and in linear time (Felzenszwalb and
/// Huttenlocher 2012, doi:10.4086/toc.2012.v008a019). At least one pixel is marked.
std::vector<double> squared_distances(const std::vector<std::uint8_t>& marked, Image image) {
  std::vector<double> squared(image.pixels());
  for (std::size_t x = 0; x < image.width; ++x) {
    double away = kNever;
    for (std::size_t y = 0; y < image.height; ++y) {
      const auto i = y * image.width + x;
      squared[i] = away = marked[i] ? 0 : away + 1;
    }
    away = kNever;
    for (std::size_t y = image.height; y-- > 0;) {
      const auto i = y * image.width + x;
      away = marked[i] ? 0 : away + 1;
      squared[i] = std::min(squared[i], away);
      squared[i] *= squared[i];
    }
  }
  std::vector<std::size_t> apex;
  std::vector<double> start, height;
  for (std::size_t y = 0; y < image.height; ++y)
    lower_envelope(std::span(squared).subspan(y * image.width, image.width), apex, start, height);
  return squared;
}

/// 95th percentile of the distances from the pixels of one surface to the nearest of the other.
double percentile95(const std::vector<std::uint8_t>& from, const std::vector<std::uint8_t>& to, Image image) {
  const auto squared = squared_distances(to, image);
  std::vector<double> distances;
  for (std::size_t i = 0; i < image.pixels(); ++i)
    if (from[i]) distances.push_back(std::sqrt(squared[i]));
  const double rank = 0.95 * double(distances.size() - 1);
  const auto below = distances.begin() + std::ptrdiff_t(rank);
  std::nth_element(distances.begin(), below, distances.end());
  if (below + 1 == distances.end()) return *below;
  return std::lerp(*below, *std::min_element(below + 1, distances.end()), rank - std::floor(rank));
}

}  // namespace

SegmentationScore score_masks(std::span<const std::uint8_t> predicted, std::span<const std::uint8_t> truth, int height, int width,
                              int classes) {
  classes = std::max(classes, 2);
  if (height < 1 || width < 1 || predicted.size() != std::size_t(height) * std::size_t(width) || truth.size() != predicted.size())
    throw std::invalid_argument("score_masks: maps are not of the size given");
  const Image image{std::size_t(height), std::size_t(width)};
  std::vector<std::size_t> in_predicted(256), in_truth(256), in_both(256);
  for (std::size_t i = 0; i < image.pixels(); ++i) {
    if (predicted[i] >= classes || truth[i] >= classes) throw std::invalid_argument("score_masks: a pixel has an unknown class");
    ++in_predicted[predicted[i]], ++in_truth[truth[i]];
    in_both[truth[i]] += predicted[i] == truth[i];
  }
  SegmentationScore sum;
  double hd95 = 0, present = 0;
  for (std::size_t c = 1; c < std::min<std::size_t>(std::size_t(classes), 256); ++c) {
    const auto either = in_predicted[c] + in_truth[c];
    if (either == 0) continue;
    ++present;
    sum.dice += 2 * double(in_both[c]) / double(either);
    sum.iou += double(in_both[c]) / double(either - in_both[c]);
    if (in_predicted[c] == 0 || in_truth[c] == 0) {
      hd95 += std::hypot(height, width);
    } else {
      const auto ours = surface(predicted, image, std::uint8_t(c)), theirs = surface(truth, image, std::uint8_t(c));
      hd95 += std::max(percentile95(ours, theirs, image), percentile95(theirs, ours, image));
    }
  }
  if (present == 0) return {1, 1, std::nullopt};
  return {sum.dice / present, sum.iou / present, hd95 / present};
}

}  // namespace preceptor::training
