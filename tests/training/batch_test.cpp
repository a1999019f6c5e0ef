#include "training/batch.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <numeric>
#include <set>

#include "tests/training/made_masks.h"

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
  const data::Dataset set{8, 8, 1, {"a", "b"}, std::vector<std::uint8_t>(64, 0), {0}, {}};
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
  data::Dataset grey{8, 8, 1, {"a", "b"}, {}, {}, {}};
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

/// Images that are their own masks, in black and white.
data::Dataset self_masked(std::size_t images, int size) {
  auto set = test::blocks(images, size);
  for (std::size_t p = 0; p < set.masks.size(); ++p) set.pixels[p] = set.masks[p] ? 255 : 0;
  return set;
}

TEST(Batch, OfASegmentationSetHasTheMasksAsLabels) {
  const auto set = test::blocks(5, 9, 3);
  const Index index{4, 0, 2};
  const auto batch = make_batch(set, index);
  ASSERT_EQ(batch.labels.sizes(), (std::vector<std::int64_t>{3, 9, 9}));
  ASSERT_EQ(batch.labels.scalar_type(), torch::kInt64);
  for (std::size_t b = 0; b < 3; ++b)
    for (std::size_t p = 0; p < 81; ++p)
      ASSERT_EQ(batch.labels.data_ptr<std::int64_t>()[b * 81 + p], set.mask(index[b])[p]);
  EXPECT_TRUE(torch::equal(make_batch(set, index, {}, 5, 2).labels, batch.labels)) << "an augmentation of all zeros";
}

TEST(Augmentation, MovesAMaskWithItsImage) {
  const auto set = self_masked(40, 24);
  Index all(set.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  const AugmentOptions moves[] = {{.shift = 5}, {.rotate = 180}, {.scale = 0.5}, {.flip = true},
                                  {.shift = 4, .rotate = 180, .scale = 0.3, .flip = true}};
  const auto plain = make_batch(set, all).labels;
  for (std::size_t m = 0; m < std::size(moves); ++m) {
    const auto batch = make_batch(set, all, moves[m], 3, 1);
    const auto value = batch.images.squeeze(1);
    EXPECT_FALSE(torch::equal(batch.labels, plain)) << m;
    EXPECT_EQ(((batch.labels == 0) | (batch.labels == 1)).all().item<bool>(), true) << m;
    // Where three quarters of a bilinear mean are of one kind, the nearest of its four pixels is, too: the nearest has
    // a quarter at least. (0.6 instead of 0.5, for OpenCV's 32nds of a pixel.)
    const auto clear = value.abs() > 0.6;
    EXPECT_TRUE(torch::equal(batch.labels.masked_select(clear), (value > 0).to(torch::kInt64).masked_select(clear))) << m;
    EXPECT_GT(clear.to(torch::kFloat64).mean().item<double>(), 0.75) << m;
  }
}

TEST(Augmentation, FlipMirrorsAMaskExactlyWhenItMirrorsTheImage) {
  const auto set = test::blocks(40, 15, 3);
  AugmentOptions flip;
  flip.flip = true;
  int mirrored = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    const auto plain = make_batch(set, Index{i}), changed = make_batch(set, Index{i}, flip, 1, 0);
    const bool turned = !torch::equal(changed.images, plain.images);
    mirrored += turned;
    EXPECT_TRUE(torch::equal(changed.labels, turned ? plain.labels.flip(2) : plain.labels)) << i;
  }
  EXPECT_GT(mirrored, 8);  // fair coins: false alarm of either bound 1e-4
  EXPECT_LT(mirrored, 32);
}

TEST(Augmentation, OfTonesAndErasedSquaresLeavesMasksAlone) {
  const auto set = test::blocks(6);
  const Index all{0, 1, 2, 3, 4, 5};
  const auto changed = make_batch(set, all, {.contrast = 0.5, .brightness = 0.5, .erase = 0.5}, 1, 0);
  const auto plain = make_batch(set, all);
  EXPECT_FALSE(torch::equal(changed.images, plain.images));
  EXPECT_TRUE(torch::equal(changed.labels, plain.labels));
}

TEST(Augmentation, OfAMaskDependsOnSeedImageAndViewAlone) {
  const auto set = test::blocks(6);
  const auto labels = [&](const Index& index, std::int64_t row, std::uint64_t seed, int view) {
    return make_batch(set, index, everything(), seed, view).labels[row].clone();
  };
  const auto alone = labels({4}, 0, 7, 2);
  EXPECT_TRUE(torch::equal(alone, labels({0, 1, 4, 5}, 2, 7, 2)));
  EXPECT_FALSE(torch::equal(alone, labels({4}, 0, 8, 2)));
  EXPECT_FALSE(torch::equal(alone, labels({4}, 0, 7, 3)));
  // Masks draw nothing: the image changes as that of a set without masks does.
  auto without = set;
  without.segmentation = false;
  without.masks.clear();
  EXPECT_TRUE(torch::equal(make_batch(without, Index{4, 1}, everything(), 7, 2).images,
                           make_batch(set, Index{4, 1}, everything(), 7, 2).images));
}

TEST(Normalised, IsAnImageOfAnySizeByTheSameContract) {
  const auto set = noise(1, 3, 9);
  EXPECT_TRUE(torch::equal(normalised(set.image(0), 9, 9, 3), make_batch(set, Index{0}).images[0]));
  const std::vector<std::uint8_t> pixels{0, 51, 102, 153, 204, 255};
  const auto image = normalised(pixels, 2, 3, 1);
  ASSERT_EQ(image.sizes(), (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_TRUE(torch::allclose(image[0], torch::tensor({{-1.0f, -0.6f, -0.2f}, {0.2f, 0.6f, 1.0f}})));
}

}  // namespace
}  // namespace preceptor::training
