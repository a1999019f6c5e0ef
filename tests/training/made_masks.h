#pragma once
#include "tests/training/made.h"

namespace preceptor::training::test {

/// One convolution of 1 × 1: logits of a pixel that depend on that pixel alone.
class Pixelwise : public models::Model {
 public:
  explicit Pixelwise(const models::TaskOptions& task)
      : out_(register_module("out", torch::nn::Conv2d(torch::nn::Conv2dOptions(task.channels, task.classes, 1)))) {}
  torch::Tensor forward(torch::Tensor images) override { return out_(images); }

 private:
  torch::nn::Conv2d out_;
};
inline const models::RegisterModel kPixelwise{"test-pixelwise",
                                              {"CNN", "segmentation", "",
                                               [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
                                                 return std::make_shared<Pixelwise>(spec.task);
                                               }}};

/// Images of one to three filled rectangles of noise around 190 on noise around 60, and where they are: class 1 or,
/// of every other rectangle where there are three classes, 2. A pixel is within 30 of what its mask says.
inline data::Dataset blocks(std::size_t images, int size = 16, int classes = 2, std::uint64_t seed = 1) {
  data::Dataset set{size, size, 1, {"background", "class-1"}, {}, {}, {}, true};
  if (classes == 3) set.classes.push_back("class-2");
  for (std::size_t i = 0; i < images; ++i) {
    RandomStream random(seed, "blocks", {i});
    std::vector<std::uint8_t> mask(set.mask_bytes());
    const auto side = std::uint64_t(size);
    for (auto left = 1 + random.below(3); left > 0; --left) {
      const auto top = random.below(side - 3), from = random.below(side - 3);
      const auto bottom = std::min(side, top + 3 + random.below(side / 2));
      const auto to = std::min(side, from + 3 + random.below(side / 2));
      for (auto y = top; y < bottom; ++y)
        for (auto x = from; x < to; ++x) mask[y * side + x] = std::uint8_t(1 + (classes == 3 ? left % 2 : 0));
    }
    for (const auto label : mask) set.pixels.push_back(std::uint8_t((label ? 190 : 60) - 30 + int(random.below(61))));
    set.masks.insert(set.masks.end(), mask.begin(), mask.end());
    set.labels.push_back(0);
  }
  return set;
}

}  // namespace preceptor::training::test
