#include "training/segment.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

namespace preceptor::training {
namespace {

using testing::ElementsAre;

/// Three logits of each pixel, from its two channels alone.
at::Tensor pointwise(const at::Tensor& images) {
  const auto a = images.narrow(1, 0, 1), b = images.narrow(1, 1, 1);
  return torch::cat({a + 2 * b, torch::sin(3 * a), a * b}, 1);
}

at::Tensor image_of(std::int64_t height, std::int64_t width) {
  torch::manual_seed(std::uint64_t(height * 1000 + width));
  return torch::rand({height, width, 2}).mul(2).sub(1).permute({2, 0, 1});  // as normalised() lays it out
}

TEST(Segment, AnImageOfOneTileGoesThroughWhole) {
  int calls = 0;
  const auto image = image_of(16, 16);
  const auto logits = segment(
      [&](const at::Tensor& images) {
        ++calls;
        EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{1, 2, 16, 16}));
        EXPECT_TRUE(torch::equal(images[0], image));
        return torch::cumsum(pointwise(images), 3);  // a pixel depends on others
      },
      image, 16);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(torch::equal(logits, torch::cumsum(pointwise(image.unsqueeze(0)), 3)[0]));
}

TEST(Segment, InTilesAPointwiseNetworkGivesWhatItGivesAtOnce) {
  const std::pair<int, int> sizes[] = {{1, 1}, {5, 7}, {15, 15}, {16, 9}, {9, 16}, {16, 17}, {17, 17},
                                       {24, 25}, {32, 32}, {40, 23}, {7, 100}, {100, 33}};
  for (const int tile : {1, 7, 16})
    for (const auto& [height, width] : sizes) {
      const auto image = image_of(height, width);
      const auto logits = segment(pointwise, image, tile);
      ASSERT_EQ(logits.sizes(), (std::vector<std::int64_t>{3, height, width}));
      // Also: every pixel is covered, or it would be 0 / 0.
      EXPECT_TRUE(torch::allclose(logits, pointwise(image.unsqueeze(0))[0], 1e-4, 1e-5))
          << height << " × " << width << " in tiles of " << tile;
    }
}

TEST(Segment, EveryTileIsOfTheNetworksSizeAndNeighboursOverlapByHalfOrMore) {
  // A picture of its own columns, so that a tile tells where it was cut.
  for (const int width : {17, 24, 25, 31, 32, 33, 100}) {
    const auto columns = torch::arange(width, torch::kFloat32).expand({1, 16, width});
    std::vector<int> starts;
    segment(
        [&](const at::Tensor& images) {
          EXPECT_EQ(images.sizes(), (std::vector<std::int64_t>{1, 1, 16, 16}));
          starts.push_back(images[0][0][0][0].item<int>());
          return images;
        },
        columns, 16);
    EXPECT_EQ(starts.front(), 0) << width;
    EXPECT_EQ(starts.back(), width - 16) << width;
    for (std::size_t i = 1; i < starts.size(); ++i) {
      EXPECT_LE(starts[i] - starts[i - 1], 8) << width;
      EXPECT_GT(starts[i], starts[i - 1]) << width;
    }
    EXPECT_EQ(starts.size(), std::size_t(1 + (width - 16 + 7) / 8)) << width;
  }
}

TEST(Segment, AnImageSmallerThanATileHasItsEdgeRepeated) {
  int calls = 0;
  const auto image = torch::tensor({{{1.0f, 2.0f, 3.0f}, {4.0f, 5.0f, 6.0f}}});
  const auto logits = segment(
      [&](const at::Tensor& images) {
        ++calls;
        EXPECT_TRUE(torch::equal(images[0][0], torch::tensor({{1.0f, 2.0f, 3.0f, 3.0f},
                                                              {4.0f, 5.0f, 6.0f, 6.0f},
                                                              {4.0f, 5.0f, 6.0f, 6.0f},
                                                              {4.0f, 5.0f, 6.0f, 6.0f}})));
        return images;
      },
      image, 4);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(torch::allclose(logits, image));
}

TEST(Segment, TilesAreBlendedSmoothlyAndEachRulesAtItsCentre) {
  int call = 0;  // the first tile says 0, the second 1
  const auto network = [&](const at::Tensor& images) { return torch::full_like(images, float(call++)); };
  const auto logits = segment(network, torch::zeros({1, 16, 24}), 16);
  ASSERT_EQ(call, 2);
  const auto row = logits[0][5];
  EXPECT_EQ(row.narrow(0, 0, 8).abs().max().item<float>(), 0) << "only the first tile is there";
  EXPECT_EQ(row.narrow(0, 16, 8).min().item<float>(), 1);
  const auto steps = row.narrow(0, 1, 23) - row.narrow(0, 0, 23);
  EXPECT_GE(steps.min().item<float>(), 0);
  EXPECT_LT(row[8].item<float>(), 0.1);
  EXPECT_GT(row[15].item<float>(), 0.9);
  EXPECT_NEAR((row[11] + row[12]).item<double>(), 1, 1e-5) << "alike on both sides of the seam's middle";
}

TEST(Segment, KeepsNoGraph) {
  const auto weight = torch::ones({1}, torch::requires_grad());
  const auto scaled = [&](const at::Tensor& images) { return images * weight; };
  EXPECT_FALSE(segment(scaled, torch::ones({1, 8, 8}), 8).requires_grad());
  EXPECT_FALSE(segment(scaled, torch::ones({1, 9, 20}), 8).requires_grad());
}

TEST(ClassMap, IsTheLikeliestClassOfEachPixelRowByRow) {
  const auto logits = torch::tensor({{{0.0f, 2.0f, 0.0f}, {1.0f, 0.0f, -3.0f}},
                                     {{1.0f, 0.0f, -1.0f}, {0.0f, 5.0f, -2.0f}},
                                     {{0.5f, 1.0f, -1.0f}, {9.0f, 4.0f, -1.0f}}});
  EXPECT_THAT(class_map(logits), ElementsAre(1, 0, 0, 2, 1, 2));
  EXPECT_THAT(class_map(logits.transpose(1, 2)), ElementsAre(1, 2, 0, 1, 0, 2)) << "whatever lies where in memory";
}

}  // namespace
}  // namespace preceptor::training
