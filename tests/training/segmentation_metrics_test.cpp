#include "training/segmentation_metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/random.h"

namespace preceptor::training {
namespace {

struct Map {
  int height, width;
  std::vector<std::uint8_t> pixels;
};

Map blank(int height, int width) { return {height, width, std::vector<std::uint8_t>(std::size_t(height * width))}; }

/// A filled rectangle, rows [top, bottom) and columns [left, right).
Map with(Map map, int top, int bottom, int left, int right, std::uint8_t label = 1) {
  for (int y = top; y < bottom; ++y)
    for (int x = left; x < right; ++x) map.pixels[std::size_t(y * map.width + x)] = label;
  return map;
}

SegmentationScore score(const Map& predicted, const Map& truth, int classes = 2) {
  return score_masks(predicted.pixels, truth.pixels, truth.height, truth.width, classes);
}

/// The definition of HD95, pair by pair, on a sorted copy.
double hd95_by_pairs(const Map& a, const Map& b, std::uint8_t label) {
  using Point = std::pair<int, int>;
  const auto surface = [&](const Map& map) {
    const auto inside = [&](int y, int x) {
      return y >= 0 && x >= 0 && y < map.height && x < map.width && map.pixels[std::size_t(y * map.width + x)] == label;
    };
    std::vector<Point> points;
    for (int y = 0; y < map.height; ++y)
      for (int x = 0; x < map.width; ++x)
        if (inside(y, x) && !(inside(y - 1, x) && inside(y + 1, x) && inside(y, x - 1) && inside(y, x + 1)))
          points.push_back({y, x});
    return points;
  };
  const auto directed = [](const std::vector<Point>& from, const std::vector<Point>& to) {
    std::vector<double> distances;
    for (const auto& p : from) {
      double nearest = INFINITY;
      for (const auto& q : to) nearest = std::min(nearest, std::hypot(p.first - q.first, p.second - q.second));
      distances.push_back(nearest);
    }
    std::sort(distances.begin(), distances.end());
    const double rank = 0.95 * double(distances.size() - 1);
    const auto low = std::size_t(std::floor(rank)), high = std::size_t(std::ceil(rank));
    return distances[low] + (rank - double(low)) * (distances[high] - distances[low]);
  };
  const auto ours = surface(a), theirs = surface(b);
  return std::max(directed(ours, theirs), directed(theirs, ours));
}

TEST(ScoreMasks, OfEqualMapsIsPerfect) {
  const auto map = with(blank(10, 12), 2, 7, 3, 9);
  const auto result = score(map, map);
  EXPECT_EQ(result.dice, 1);
  EXPECT_EQ(result.iou, 1);
  EXPECT_EQ(result.hd95, 0);
}

TEST(ScoreMasks, OfASquareMovedAsideByTwo) {
  // 4×4 against 4×4 two columns to the right: 8 pixels in common, 24 in either. Of each surface's 12 pixels, the far
  // column's 4 are 2 away, and the near halves overlap: the 95th percentile is 2.
  const auto result = score(with(blank(12, 12), 4, 8, 4, 8), with(blank(12, 12), 4, 8, 6, 10));
  EXPECT_DOUBLE_EQ(result.dice, 0.5);
  EXPECT_DOUBLE_EQ(result.iou, 8.0 / 24);
  EXPECT_DOUBLE_EQ(*result.hd95, 2);
}

TEST(ScoreMasks, OfTwoPixelsIsTheirDistance) {
  const auto result = score(with(blank(20, 30), 5, 6, 7, 8), with(blank(20, 30), 8, 9, 11, 12));
  EXPECT_EQ(result.dice, 0);
  EXPECT_EQ(result.iou, 0);
  EXPECT_DOUBLE_EQ(*result.hd95, 5);  // 3 rows, 4 columns
}

TEST(ScoreMasks, PercentileLeavesTheFarthestPixelsOut) {
  // Along one row, 21 pixels against their first: distances 0 … 20, rank 0.95·20 = 19.
  const auto line = with(blank(3, 40), 1, 2, 0, 21), pixel = with(blank(3, 40), 1, 2, 0, 1);
  EXPECT_DOUBLE_EQ(*score(line, pixel).hd95, 19);
  EXPECT_DOUBLE_EQ(*score(pixel, line).hd95, 19) << "the larger of both directions";
  // 11 pixels: rank 9.5, halfway between 9 and 10.
  EXPECT_DOUBLE_EQ(*score(with(blank(3, 40), 1, 2, 0, 11), pixel).hd95, 9.5);
}

TEST(ScoreMasks, OfTwoEmptyMapsIsPerfectWithoutADistance) {
  const auto result = score(blank(5, 6), blank(5, 6));
  EXPECT_EQ(result.dice, 1);
  EXPECT_EQ(result.iou, 1);
  EXPECT_FALSE(result.hd95);
}

TEST(ScoreMasks, OfOneEmptyMapIsTheWorst) {
  const auto map = with(blank(30, 40), 3, 9, 3, 9);
  for (const auto& result : {score(map, blank(30, 40)), score(blank(30, 40), map)}) {
    EXPECT_EQ(result.dice, 0);
    EXPECT_EQ(result.iou, 0);
    EXPECT_DOUBLE_EQ(*result.hd95, 50);
  }
}

TEST(ScoreMasks, OfSeveralClassesIsTheMeanOfThoseThatOccur) {
  // Class 1 is found exactly, class 2 is missed, class 3 is in neither map.
  const auto found = with(blank(30, 40), 0, 5, 0, 5, 1);
  const auto result = score(found, with(found, 10, 20, 10, 20, 2), 4);
  EXPECT_DOUBLE_EQ(result.dice, 0.5);
  EXPECT_DOUBLE_EQ(result.iou, 0.5);
  EXPECT_DOUBLE_EQ(*result.hd95, 25);
}

TEST(ScoreMasks, OneMapOfLogitsHasOneForegroundClass) {
  const auto map = with(blank(8, 8), 2, 5, 2, 5);
  EXPECT_EQ(score(map, map, 1).dice, 1);
  EXPECT_EQ(score(blank(8, 8), map, 1).dice, 0);
}

TEST(ScoreMasks, HausdorffDistanceIsThatOfAllPairs) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    RandomStream random(seed, "masks");
    const int height = 1 + int(random.below(24)), width = 1 + int(random.below(24));
    const double density = std::pow(random.uniform(), 3);  // from single pixels to nearly full
    const auto draw = [&] {
      auto map = blank(height, width);
      for (auto& pixel : map.pixels) pixel = random.uniform() < density;
      const int y = int(random.below(std::uint64_t(height))), x = int(random.below(std::uint64_t(width)));
      return with(map, y, 1 + int(random.below(std::uint64_t(height))), x, 1 + int(random.below(std::uint64_t(width))));
    };
    auto a = draw(), b = draw();
    a.pixels[random.below(a.pixels.size())] = 1;
    b.pixels[random.below(b.pixels.size())] = 1;
    ASSERT_NEAR(*score(a, b).hd95, hd95_by_pairs(a, b, 1), 1e-12) << "seed " << seed;
  }
}

TEST(ScoreMasks, OfALargeImageIsExact) {
  const auto a = with(blank(1024, 1024), 0, 1, 0, 1), b = with(blank(1024, 1024), 1023, 1024, 1023, 1024);
  EXPECT_DOUBLE_EQ(*score(a, b).hd95, std::hypot(1023, 1023));
}

TEST(ScoreMasks, MapsOfAnotherSizeOrClassAreABug) {
  const auto map = blank(4, 4);
  EXPECT_THROW(score_masks(map.pixels, map.pixels, 4, 5, 2), std::invalid_argument);
  EXPECT_THROW(score(with(map, 0, 1, 0, 1, 2), map), std::invalid_argument);
}

}  // namespace
}  // namespace preceptor::training
