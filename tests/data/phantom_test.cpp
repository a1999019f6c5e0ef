#include <gmock/gmock.h>

#include <chrono>
#include <cmath>

#include "data/data.h"
#include "data/manifest.h"
#include "tests/data/made.h"

namespace preceptor::data {
namespace {

using testing::ElementsAre;

Source phantom(const PhantomOptions& knobs, int size = 28, int channels = 1,
               std::uint64_t seed = 1) {
  SourceOptions options;
  options.image_size = size;
  options.channels = channels;
  options.phantom = knobs;
  auto source = read_source(options, seed);
  EXPECT_TRUE(source) << source.error().message;
  return source ? *source : Source{};
}

double mean(std::span<const std::uint8_t> pixels) {
  double sum = 0;
  for (const auto p : pixels) sum += p;
  return sum / double(pixels.size());
}

// Mean brightness of the site's images.
double site_mean(const Source& source, std::int32_t site) {
  double sum = 0, count = 0;
  for (std::size_t i = 0; i < source.images.size(); ++i)
    if (source.sites[i] == site) sum += mean(source.images.image(i)), ++count;
  return sum / count;
}

TEST(Phantom, IsTheSameForTheSameSeedAndAnotherForAnother) {
  const PhantomOptions knobs{.images = 40};
  const auto hash = content_hash(phantom(knobs).images);
  EXPECT_EQ(content_hash(phantom(knobs).images), hash);
  EXPECT_NE(content_hash(phantom(knobs, 28, 1, 2).images), hash);
}

TEST(Phantom, FillsSitesClassesAndShapes) {
  for (const int size : {16, 28, 64, 256})
    for (const int channels : {1, 3}) {
      const auto source = phantom({.images = 24, .sites = 3, .classes = 4}, size, channels);
      EXPECT_EQ(source.images.size(), 24u);
      EXPECT_EQ(source.images.pixels.size(), 24u * size * size * channels);
      EXPECT_THAT(source.images.classes, ElementsAre("healthy", "nodule", "cyst", "mass"));
      EXPECT_THAT(source.site_names, ElementsAre("hospital-1", "hospital-2", "hospital-3"));
      EXPECT_THAT(source.splits, testing::Each(Split::kUnassigned));
      for (std::int32_t site = 0; site < 3; ++site)
        EXPECT_THAT(source.sites, testing::Contains(site));
      const double brightness = mean(source.images.pixels);
      EXPECT_GT(brightness, 15) << size;
      EXPECT_LT(brightness, 140) << size;
    }
}

TEST(Phantom, BalancesClassesAndSitesWhenNothingShifts) {
  const auto source = phantom({.images = 1000, .sites = 4, .classes = 4, .site_shift = 0});
  EXPECT_THAT(source.images.class_counts(),
              testing::Each(testing::AllOf(testing::Ge(249u), testing::Le(251u))));
  for (std::int32_t site = 0; site < 4; ++site)
    EXPECT_EQ(std::ranges::count(source.sites, site), 250);
}

TEST(Phantom, SpreadsSitesWithTheShift) {
  const auto spread = [](double shift) {
    const auto source = phantom({.images = 600, .sites = 6, .site_shift = shift});
    double low = 255, high = 0;
    for (std::int32_t site = 0; site < 6; ++site) {
      low = std::min(low, site_mean(source, site));
      high = std::max(high, site_mean(source, site));
    }
    return high - low;
  };
  EXPECT_LT(spread(0), 5);
  EXPECT_GT(spread(1), 25);
}

TEST(Phantom, ShowsLesionsLessTheHarderItIs) {
  // The brightest 3×3 patch separates nodules from healthy images; by how much, in deviations?
  const auto separation = [](double difficulty) {
    const auto source = phantom(
        {.images = 600, .sites = 1, .classes = 3, .site_shift = 0, .difficulty = difficulty});
    double sum[3] = {}, squares[3] = {}, count[3] = {};
    for (std::size_t i = 0; i < source.images.size(); ++i) {
      const auto image = source.images.image(i);
      double best = 0;
      for (std::size_t row = 1; row < 27; ++row)
        for (std::size_t column = 1; column < 27; ++column) {
          double patch = 0;
          for (std::size_t k = 0; k < 9; ++k)
            patch += image[(row + k / 3 - 1) * 28 + column + k % 3 - 1];
          best = std::max(best, patch / 9);
        }
      const auto label = std::size_t(source.images.labels[i]);
      sum[label] += best, squares[label] += best * best, ++count[label];
    }
    const double healthy = sum[0] / count[0], nodule = sum[1] / count[1];
    return (nodule - healthy) / std::sqrt(squares[0] / count[0] - healthy * healthy);
  };
  const double easy = separation(0), middle = separation(0.5), hard = separation(1);
  EXPECT_GT(easy, 2);
  EXPECT_GT(easy, middle + 0.5);
  EXPECT_GT(middle, hard + 0.3);
}

TEST(Phantom, IsDealtBySite) {
  DataOptions options;
  const auto federation = load(options, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  ASSERT_EQ(federation->sites.size(), 4u);
  EXPECT_EQ(federation->sites[0].name, "hospital-1");
  EXPECT_EQ(federation->report.duplicates, 0u);
}

TEST(Phantom, CopesWithFourThousandSites) {
  DataOptions options;
  options.image_size = 16;
  options.phantom = {.images = 4096 * 8, .sites = 4096, .site_shift = 0};
  options.partition.minimum = 1;
  const auto federation = load(options, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  EXPECT_EQ(federation->sites.size(), 4096u);
  for (const auto& site : federation->sites) EXPECT_GT(site.data.test.size(), 0u);
}

TEST(Readers, AllAnswerAnUnusablePathWithAnError) {
  for (const auto& kind : readers().names()) {
    SourceOptions options;
    options.kind = kind;
    options.path = "/nonexistent";
    options.max_bytes = 1;
    const auto source = read_source(options, 1);
    ASSERT_FALSE(source) << kind;
    EXPECT_FALSE(source.error().message.empty());
  }
}

TEST(Readers, AnswerAnUnknownKindWithTheKnownOnes) {
  const auto source = read_source(source_options("dicom", ""), 1);
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, testing::HasSubstr("folder, masks, medmnist, phantom"));
  SourceOptions two;
  two.channels = 2;
  EXPECT_FALSE(read_source(two, 1));
}

}  // namespace
}  // namespace preceptor::data
