#include "training/batch.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <opencv2/imgproc.hpp>

namespace preceptor::training {
namespace {

Batch empty_batch(const data::Dataset& dataset, std::span<const std::size_t> index, int view) {
  const auto count = std::int64_t(index.size());
  // Height, width, channels in memory is what LibTorch calls channels_last.
  auto images = torch::empty({count, dataset.height, dataset.width, dataset.channels}).permute({0, 3, 1, 2});
  if (dataset.segmentation) return {images, torch::empty({count, dataset.height, dataset.width}, torch::kInt64), index, view};
  auto labels = torch::empty({count}, torch::kInt64);
  for (std::int64_t i = 0; i < count; ++i) labels.data_ptr<std::int64_t>()[i] = dataset.labels[index[std::size_t(i)]];
  return {images, labels, index, view};
}

void normalise(std::span<const std::uint8_t> pixels, float* out) {
  for (std::size_t i = 0; i < pixels.size(); ++i) out[i] = float(pixels[i]) / 127.5f - 1.0f;
}

/// Rotation, scale, flip and shift about the centre, as the inverse map that warpAffine wants.
cv::Matx23d geometry(const AugmentOptions& o, RandomStream& random, int height, int width) {
  const double angle = random.uniform(-o.rotate, o.rotate) * std::numbers::pi / 180;
  const double scale = 1 / (1 + random.uniform(-o.scale, o.scale));
  const double mirror = o.flip && random.below(2) == 1 ? -1 : 1;
  const double dx = random.uniform(-o.shift, o.shift), dy = random.uniform(-o.shift, o.shift);
  const double c = scale * std::cos(angle), s = scale * std::sin(angle);
  const double cx = (width - 1) / 2.0, cy = (height - 1) / 2.0;
  return {mirror * c, -s, cx - mirror * c * (cx + dx) + s * (cy + dy),
          mirror * s, c,  cy - mirror * s * (cx + dx) - c * (cy + dy)};
}

void tone(const AugmentOptions& o, RandomStream& random, cv::Mat& image) {
  const double gain = 1 + random.uniform(-o.contrast, o.contrast);
  const double offset = 2 * random.uniform(-o.brightness, o.brightness);
  if (gain == 1 && offset == 0) return;
  const auto mean = cv::mean(image);
  for (int y = 0; y < image.rows; ++y) {
    auto* row = image.ptr<float>(y);
    for (int x = 0; x < image.cols * image.channels(); ++x) {
      const double centre = mean[x % image.channels()];
      row[x] = std::clamp(float((row[x] - centre) * gain + centre + offset), -1.0f, 1.0f);
    }
  }
}

void erase(const AugmentOptions& o, RandomStream& random, cv::Mat& image) {
  const int side = int(std::lround(o.erase * image.rows));
  if (side <= 0) return;
  const int x = int(random.below(std::uint64_t(image.cols))) - side / 2;
  const int y = int(random.below(std::uint64_t(image.rows))) - side / 2;
  const cv::Rect square = cv::Rect(x, y, side, side) & cv::Rect(0, 0, image.cols, image.rows);
  image(square).setTo(cv::mean(image));
}

}  // namespace

Batch make_batch(const data::Dataset& dataset, std::span<const std::size_t> index) {
  auto batch = empty_batch(dataset, index, 0);
  auto* out = static_cast<float*>(batch.images.data_ptr());
  for (const auto i : index) {
    normalise(dataset.image(i), out);
    out += dataset.image_bytes();
  }
  if (dataset.segmentation) {
    auto* label = batch.labels.data_ptr<std::int64_t>();
    for (const auto i : index) label = std::ranges::copy(dataset.mask(i), label).out;
  }
  return batch;
}

Batch make_batch(const data::Dataset& dataset, std::span<const std::size_t> index, const AugmentOptions& augment,
                 std::uint64_t seed, int view) {
  auto batch = empty_batch(dataset, index, view);
  auto* out = static_cast<float*>(batch.images.data_ptr());
  const int type = CV_32FC(dataset.channels);
  cv::Mat plain(dataset.height, dataset.width, type), moved;
  auto* label = dataset.segmentation ? batch.labels.data_ptr<std::int64_t>() : nullptr;
  for (const auto i : index) {
    RandomStream random(seed, "augment", {i, std::uint64_t(view)});
    normalise(dataset.image(i), plain.ptr<float>());
    cv::Mat target(dataset.height, dataset.width, type, out);
    const auto map = geometry(augment, random, dataset.height, dataset.width);
    cv::warpAffine(plain, target, map, plain.size(), cv::INTER_LINEAR | cv::WARP_INVERSE_MAP, cv::BORDER_REFLECT_101);
    tone(augment, random, target);
    erase(augment, random, target);
    out += dataset.image_bytes();
    if (label) {  // the mask moves with its image; nearest neighbour keeps classes whole
      const cv::Mat mask(dataset.height, dataset.width, CV_8U, const_cast<std::uint8_t*>(dataset.mask(i).data()));
      cv::warpAffine(mask, moved, map, mask.size(), cv::INTER_NEAREST | cv::WARP_INVERSE_MAP, cv::BORDER_REFLECT_101);
      label = std::copy(moved.begin<std::uint8_t>(), moved.end<std::uint8_t>(), label);
    }
  }
  return batch;
}

at::Tensor normalised(std::span<const std::uint8_t> pixels, int height, int width, int channels) {
  auto image = torch::empty({height, width, channels});
  normalise(pixels, image.data_ptr<float>());
  return image.permute({2, 0, 1});
}

}  // namespace preceptor::training
