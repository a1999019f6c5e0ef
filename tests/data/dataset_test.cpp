#include "data/dataset.h"

#include <gmock/gmock.h>

#include "data/manifest.h"
#include "tests/data/made.h"

namespace preceptor::data {
namespace {

TEST(Dataset, TakesASubsetInTheGivenOrder) {
  const auto images = made_source(10, 3).images;
  const std::vector<std::size_t> index{7, 2, 2};
  const auto part = images.subset(index);
  EXPECT_THAT(part.labels, testing::ElementsAre(1, 2, 2));
  EXPECT_EQ(part.image(0)[0], 7);
  EXPECT_EQ(part.image(2)[0], 2);
  EXPECT_EQ(part.classes, images.classes);
  EXPECT_THAT(part.class_counts(), testing::ElementsAre(0, 1, 2));
}

TEST(Dataset, RefusesToAppendAnotherShape) {
  auto images = made_source(2, 2).images;
  auto other = images.like();
  EXPECT_EQ(other.size(), 0u);
  other.width = 5;
  EXPECT_THROW(images.append(other), std::logic_error);
}

/// `count` images of 4 × 4, image i of tag i and with a mask of i % 3.
Dataset masked(std::size_t count) {
  auto images = made_source(count, 1).images;
  images.classes = {"background", "class-1", "class-2"};
  images.segmentation = true;
  for (std::size_t i = 0; i < count; ++i)
    images.masks.insert(images.masks.end(), images.mask_bytes(), std::uint8_t(i % 3));
  return images;
}

TEST(Dataset, KeepsMasksWithTheirImagesInASubsetAndWhenAppended) {
  const auto images = masked(6);
  const std::vector<std::size_t> index{4, 2, 2};
  auto part = images.subset(index);
  EXPECT_TRUE(part.segmentation);
  EXPECT_EQ(part.masks.size(), 3 * part.mask_bytes());
  EXPECT_THAT(part.mask(0), testing::Each(1));
  EXPECT_THAT(part.mask(2), testing::Each(2));
  part.append(images.subset(std::vector<std::size_t>{3}));
  ASSERT_EQ(part.size(), 4u);
  EXPECT_EQ(part.image(3)[0], 3);
  EXPECT_THAT(part.mask(3), testing::Each(0));
  EXPECT_THAT(part.class_counts(), testing::ElementsAre(16, 16, 32)) << "pixels";
  EXPECT_TRUE(images.like().segmentation) << "even without images";
  EXPECT_THROW(part.append(made_source(1, 1).images), std::logic_error);
}

TEST(Manifest, HashesEqualSetsAlikeAndOthersNot) {
  const auto images = made_source(10, 3).images;
  const auto hash = content_hash(images);
  EXPECT_EQ(hash.size(), 64u);
  EXPECT_EQ(content_hash(made_source(10, 3).images), hash);
  auto pixel = images, label = images, name = images, shape = images;
  pixel.pixels[5] ^= 1;
  label.labels[5] = 0;
  name.classes[0] = "other";
  shape.height = 2, shape.width = 8;
  for (const auto& changed : {pixel, label, name, shape}) EXPECT_NE(content_hash(changed), hash);
}

TEST(Manifest, TellsWhichPartAnImageIsIn) {
  const auto images = made_source(4, 2).images;
  EXPECT_NE(content_hash(Splits{images, images.like(), images.like()}),
            content_hash(Splits{images.like(), images, images.like()}));
}

}  // namespace
}  // namespace preceptor::data
