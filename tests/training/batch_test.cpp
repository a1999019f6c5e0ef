#include "training/batch.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <set>

#include "tests/training/made.h"

namespace preceptor::training {
namespace {

using test::noise;
using Index = std::vector<std::size_t>;

AugmentOptions everything() {
  return {.shift = 3,
          .rotate = 20,
          .scale = 0.2,
          .contrast = 0.3,
          .brightness = 0.2,
          .flip = true,
          .erase = 0.25};
}

at::Tensor view_of(const data::Dataset& set, const Index& index, std::size_t row,
                   const AugmentOptions& augment, std::uint64_t seed, int view) {
  return make_batch(set, index, augment, seed, view).images[std::int64_t(row)].clone();
}

TEST(Batch, NormalisesEveryPixelAndKeepsChannelsAndPlaces) {
  const auto set = noise(5, 3, 9);
  const Index index{4, 0, 2};
  const auto batch = make_batch(set, index);
  ASSERT_EQ(batch.images.sizes(), (std::vector<std::int64_t>{3, 3, 9, 9}));
  EXPECT_TRUE(batch.images.is_contiguous(at::MemoryFormat::ChannelsLast));
  for (std::int64_t b = 0; b < 3; ++b) {
    const auto pixels = set.image(index[std::size_t(b)]);
    EXPECT_EQ(batch.labels[b].item<std::int64_t>(), set.labels[index[std::size_t(b)]]);
    for (std::int64_t y = 0; y < 9; ++y)
      for (std::int64_t x = 0; x < 9; ++x)
        for (std::int64_t c = 0; c < 3; ++c)
          ASSERT_EQ(batch.images[b][c][y][x].item<float>(),
                    float(pixels[std::size_t((y * 9 + x) * 3 + c)]) / 127.5f - 1);
  }
  EXPECT_EQ(Index(batch.index.begin(), batch.index.end()), index);
}

TEST(Batch, BlackIsMinusOneAndWhiteIsOne) {
  const data::Dataset set{8, 8, 1, {"a", "b"}, std::vector<std::uint8_t>(64, 0), {0}};
  auto white = set;
  white.pixels.assign(64, 255);
  EXPECT_TRUE(torch::equal(make_batch(set, Index{0}).images, torch::full({1, 1, 8, 8}, -1.0f)));
  EXPECT_TRUE(torch::equal(make_batch(white, Index{0}).images, torch::full({1, 1, 8, 8}, 1.0f)));
}

TEST(Augmentation, OfAllZerosIsThePlainBatch) {
  for (const int channels : {1, 3}) {
    const auto set = noise(4, channels);
    const Index index{3, 1};
    EXPECT_TRUE(
        torch::equal(make_batch(set, index, {}, 5, 2).images, make_batch(set, index).images));
  }
}

TEST(Augmentation, OfAnImageDependsOnSeedImageAndViewAlone) {
  for (const int channels : {1, 3}) {
    const auto set = noise(6, channels);
    const auto alone = view_of(set, {4}, 0, everything(), 7, 2);
    EXPECT_TRUE(torch::equal(alone, view_of(set, {0, 1, 4, 5}, 2, everything(), 7, 2)))
        << "not on its company";
    EXPECT_TRUE(torch::equal(alone, view_of(set, {4, 4}, 1, everything(), 7, 2)))
        << "not on its place";
    EXPECT_FALSE(torch::equal(alone, view_of(set, {4}, 0, everything(), 8, 2)));
    EXPECT_FALSE(torch::equal(alone, view_of(set, {4}, 0, everything(), 7, 3)));
  }
  auto twins = noise(2);
  std::copy_n(twins.pixels.begin(), twins.image_bytes(),
              twins.pixels.begin() + std::ptrdiff_t(twins.image_bytes()));
  EXPECT_FALSE(torch::equal(view_of(twins, {0}, 0, everything(), 7, 2),
                            view_of(twins, {1}, 0, everything(), 7, 2)));
}

TEST(Augmentation, EachKnobAloneChangesImagesAndStaysInRange) {
  const auto set = noise(8);
  const Index all{0, 1, 2, 3, 4, 5, 6, 7};
  const auto plain = make_batch(set, all).images;
  std::vector<AugmentOptions> knobs(7);
  knobs[0].shift = 2;
  knobs[1].rotate = 15;
  knobs[2].scale = 0.2;
  knobs[3].contrast = 0.5;
  knobs[4].brightness = 0.5;
  knobs[5].flip = true;
  knobs[6].erase = 0.5;
  for (std::size_t k = 0; k < knobs.size(); ++k) {
    const auto changed = make_batch(set, all, knobs[k], 1, 0).images;
    EXPECT_FALSE(torch::equal(changed, plain)) << "knob " << k;
    EXPECT_LE(changed.abs().max().item<float>(), 1 + 1e-5) << "knob " << k;
    EXPECT_FALSE(torch::equal(make_batch(set, all, knobs[k], 1, 1).images, changed))
        << "knob " << k;
  }
}

TEST(Augmentation, FlipMirrorsAboutHalfOfTheImagesExactly) {
  const auto set = noise(40);
  AugmentOptions flip;
  flip.flip = true;
  int mirrored = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    const auto plain = make_batch(set, Index{i}).images,
               changed = make_batch(set, Index{i}, flip, 1, 0).images;
    if (torch::allclose(changed, plain.flip(3), 0, 1e-6))
      ++mirrored;
    else
      EXPECT_TRUE(torch::equal(changed, plain)) << i;
  }
  EXPECT_GT(mirrored, 8);  // fair coins: false alarm of either bound 1e-4
  EXPECT_LT(mirrored, 32);
}

TEST(Augmentation, BrightnessMovesEveryPixelBySameAmountUpToItsRange) {
  data::Dataset grey{8, 8, 1, {"a", "b"}, {}, {}};
  for (int i = 0; i < 50; ++i) {
    grey.labels.push_back(0);
    for (int p = 0; p < 64; ++p) grey.pixels.push_back(std::uint8_t(120 + p % 16));
  }
  AugmentOptions brightness;
  brightness.brightness = 0.2;
  float lowest = 1, highest = -1;
  for (std::size_t i = 0; i < grey.size(); ++i) {
    const auto moved =
        make_batch(grey, Index{i}, brightness, 1, 0).images - make_batch(grey, Index{i}).images;
    EXPECT_LT((moved.max() - moved.min()).item<float>(), 1e-5);
    lowest = std::min(lowest, moved.mean().item<float>());
    highest = std::max(highest, moved.mean().item<float>());
  }
  EXPECT_GE(lowest, -0.4f - 1e-5f);  // 0.2 of the range from -1 to 1
  EXPECT_LE(highest, 0.4f + 1e-5f);
  EXPECT_LT(lowest, -0.2f);
  EXPECT_GT(highest, 0.2f);
}

TEST(Augmentation, EraseFillsASquareWithTheImagesMean) {
  const auto set = noise(20, 1, 20);
  AugmentOptions erase;
  erase.erase = 0.25;
  for (std::size_t i = 0; i < set.size(); ++i) {
    const auto plain = make_batch(set, Index{i}).images,
               changed = make_batch(set, Index{i}, erase, 1, 0).images;
    const auto erased = changed != plain;
    EXPECT_LE(erased.sum().item<int>(), 25);
    EXPECT_GE(erased.sum().item<int>(), 4)
        << "a square whose centre is inside is never wholly outside";
    EXPECT_LT((changed.masked_select(erased) - plain.mean()).abs().max().item<float>(), 1e-5);
  }
}

}  // namespace
}  // namespace preceptor::training
