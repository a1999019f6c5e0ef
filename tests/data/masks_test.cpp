#include "data/masks.h"

#include <gmock/gmock.h>

#include <numeric>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <set>

#include "data/data.h"
#include "data/manifest.h"
#include "tests/data/made.h"
#include "tests/support/temp_dir.h"

namespace preceptor::data {
namespace {

using test::TempDir;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

std::string encoded(const cv::Mat& image, const std::string& extension = ".png") {
  std::vector<std::uint8_t> bytes;
  cv::imencode(extension, image, bytes);
  return {bytes.begin(), bytes.end()};
}

cv::Mat plain(int value, int height = 8, int width = 8, int type = CV_8UC1) {
  return cv::Mat(height, width, type, cv::Scalar::all(value));
}

/// Two discs on 0, one of each value.
cv::Mat discs(int first, int second, int height, int width, int type = CV_8UC1) {
  auto map = plain(0, height, width, type);
  const int radius = std::min(height, width) / 4;
  cv::circle(map, {width / 3, height / 3}, radius, cv::Scalar::all(first), cv::FILLED);
  cv::circle(map, {2 * width / 3, 2 * height / 3}, radius, cv::Scalar::all(second), cv::FILLED);
  return map;
}

class Masks : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& content) { spill(root_ / name, content); }
  void put_pair(const std::string& id, const cv::Mat& image, const cv::Mat& labels) {
    put("images/" + id + ".png", encoded(image));
    put("labels/" + id + ".png", encoded(labels));
  }
  Result<Source> read() { return read_source(options_, 1); }
  Source good() {
    auto source = read();
    EXPECT_TRUE(source) << source.error().message;
    return source ? *source : Source{};
  }
  std::string error() {
    auto source = read();
    if (source) return "no error";
    EXPECT_THAT(source.error().message, testing::StartsWith(root_.string() + ": "));
    EXPECT_THAT(source.error().message, testing::Not(HasSubstr("\n")));
    return source.error().message;
  }

  TempDir dir_;
  std::filesystem::path root_ = dir_ / "cells";
  SourceOptions options_ = source_options("masks", root_.string(), 8);
};

std::set<int> values(std::span<const std::uint8_t> mask) { return {mask.begin(), mask.end()}; }

TEST_F(Masks, OfInstancesAreObjectAndBackground) {
  put_pair("small", plain(10), discs(1, 200, 8, 8));
  put_pair("deep", plain(20), discs(256, 40000, 8, 8, CV_16UC1));  // low byte 0 is an object too
  put_pair("empty", plain(30), plain(0));
  const auto source = good();
  EXPECT_TRUE(source.images.segmentation);
  EXPECT_THAT(source.images.classes, ElementsAre("background", "object"));
  ASSERT_EQ(source.images.size(), 3u);
  EXPECT_THAT(source.images.labels, Each(0));
  const auto shape = discs(1, 1, 8, 8);
  const std::vector<std::uint8_t> drawn(shape.data, shape.data + 64);
  EXPECT_EQ(source.images.image(0)[0], 20) << "in order of id";
  EXPECT_THAT(source.images.mask(0), testing::ElementsAreArray(drawn));
  EXPECT_THAT(source.images.mask(1), Each(0));
  EXPECT_THAT(source.images.mask(2), testing::ElementsAreArray(drawn));
  const auto inside = std::accumulate(drawn.begin(), drawn.end(), std::size_t{0});
  EXPECT_THAT(source.images.class_counts(), ElementsAre(3 * 64 - 2 * inside, 2 * inside));
  EXPECT_TRUE(source.skipped.empty());
}

TEST_F(Masks, OfClassesKeepThem) {
  options_.masks = "class";
  put_pair("1", plain(10), discs(1, 3, 8, 8));
  put_pair("2", plain(20), discs(2, 3, 8, 8, CV_16UC1));
  const auto source = good();
  EXPECT_THAT(source.images.classes, ElementsAre("background", "class-1", "class-2", "class-3"));
  EXPECT_EQ(values(source.images.mask(0)), (std::set{0, 1, 3}));
  EXPECT_EQ(values(source.images.mask(1)), (std::set{0, 2, 3}));
}

TEST_F(Masks, WithoutAnObjectStillHaveTwoClasses) {
  options_.masks = "class";
  put_pair("1", plain(10), plain(0));
  EXPECT_THAT(good().images.classes, ElementsAre("background", "class-1"));
}

TEST_F(Masks, MayHaveClassesThatDoNotOccurHere) {
  options_.masks = "class";
  options_.classes = 5;
  put_pair("1", plain(10), discs(1, 3, 8, 8));
  EXPECT_THAT(good().images.classes, ElementsAre("background", "class-1", "class-2", "class-3", "class-4"));
  options_.classes = 4;
  EXPECT_THAT(good().images.classes, ElementsAre("background", "class-1", "class-2", "class-3"));
  options_.classes = 256;
  EXPECT_EQ(good().images.classes.size(), 256u);
}

TEST_F(Masks, OfAClassBeyondDataClassesAreRefusedNotSkipped) {
  options_.masks = "class";
  options_.classes = 3;
  put_pair("1", plain(10), plain(2));
  put_pair("2", plain(20), discs(1, 3, 8, 8));
  EXPECT_THAT(error(), HasSubstr("labels/2.png: has class 3; there are 3 classes, 0 … 2 (data.classes)"));
  EXPECT_EQ(read().error().code, Code::kInvalid);
  options_.image_size = 9;  // a class of one pixel that resampling may lose
  auto dot = plain(0, 64, 64);
  dot.at<std::uint8_t>(1, 1) = 3;
  put_pair("2", plain(20, 64, 64), dot);
  EXPECT_THAT(error(), HasSubstr("has class 3"));
}

TEST_F(Masks, RefuseDataClassesThatMeanNothing) {
  put_pair("1", plain(10), plain(1));
  options_.classes = 2;
  EXPECT_THAT(read().error().message, HasSubstr("data.classes: 2 is for data.masks: class"));
  options_.masks = "class";
  options_.classes = 1;
  EXPECT_THAT(read().error().message, HasSubstr("data.classes: 1; "));
}

TEST_F(Masks, OfClass255AreReadAndOver255Skipped) {
  options_.masks = "class";
  put_pair("most", plain(10), plain(255));
  put_pair("over", plain(20), plain(256, 8, 8, CV_16UC1));
  const auto source = good();
  EXPECT_EQ(source.images.classes.size(), 256u);
  EXPECT_THAT(source.images.mask(0), Each(255));
  EXPECT_THAT(source.skipped,
              ElementsAre(AllOf(HasSubstr("images/over.png: "), HasSubstr("class 256"),
                                HasSubstr("256 at most"))));
}

TEST_F(Masks, AreReadBesideImagesOfEveryFormat) {
  options_.channels = 3;
  for (const auto* extension : {".jpg", ".jpeg", ".BMP", ".png"}) {
    const auto id = std::string("of") + extension;
    put("images/" + id.substr(0, id.find('.')) + (extension + 1) + extension,
        encoded(plain(90, 8, 8, CV_8UC3), extension[1] == 'B' ? ".bmp" : extension));
    put("labels/" + id.substr(0, id.find('.')) + (extension + 1) + ".png", encoded(plain(1)));
  }
  put("images/notes.txt", "not an image");
  put("labels/left-over.png", encoded(plain(1)));  // a label map without an image is nobody's
  const auto source = good();
  EXPECT_EQ(source.images.size(), 4u);
  EXPECT_THAT(source.images.pixels, Each(90));
  EXPECT_THAT(source.images.masks, Each(1));
  EXPECT_TRUE(source.skipped.empty());
}

TEST_F(Masks, TakeSitesAndSplitsFromImagesCsvAndLeaveOthersOut) {
  for (const auto* id : {"a", "b", "c", "10", "9", "unnamed"}) put_pair(id, plain(1), plain(0));
  put("images.csv", "split,id,site\r\ntest,b,west\r\n,a,\r\ntrain,c,east\r\nval,10,\r\n,9,west\r\n");
  const auto source = good();
  EXPECT_THAT(source.site_names, ElementsAre("east", "west"));
  EXPECT_THAT(source.sites, ElementsAre(1, -1, -1, 1, 0)) << "of 9, 10, a, b, c";
  EXPECT_THAT(source.splits,
              ElementsAre(Split::kUnassigned, Split::kValidation, Split::kUnassigned, Split::kTest,
                          Split::kTrain));
  put("images.csv", "id\nc\n");
  const auto bare = good();
  EXPECT_EQ(bare.images.size(), 1u);
  EXPECT_THAT(bare.site_names, IsEmpty());
  EXPECT_THAT(bare.splits, ElementsAre(Split::kUnassigned));
  std::filesystem::remove(root_ / "images.csv");
  const auto all = good();
  EXPECT_EQ(all.images.size(), 6u);
  EXPECT_THAT(all.sites, Each(-1));
  EXPECT_THAT(all.splits, Each(Split::kUnassigned));
}

TEST_F(Masks, StayWithTheirImagesWhenDealtToSites) {
  options_.masks = "class";
  std::string csv = "id,site\n";
  for (int i = 0; i < 36; ++i) {
    put_pair(std::to_string(i), plain(i), plain(i % 5));
    csv += std::to_string(i) + (i % 3 == 0 ? ",north\n" : i % 3 == 1 ? ",south\n" : ",west\n");
  }
  put("images.csv", csv);
  PartitionOptions partition;
  partition.minimum = 4;
  partition.consortium = 0.25;
  const auto federation = federate(good(), partition, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  ASSERT_EQ(federation->sites.size(), 3u);
  const std::vector<std::string> names{"north", "south", "west"};
  std::set<int> dealt;
  std::size_t images = 0;
  const auto look = [&](const Dataset& part, int site) {
    EXPECT_TRUE(part.segmentation);
    EXPECT_EQ(part.classes.size(), 5u);
    ASSERT_EQ(part.masks.size(), part.size() * part.mask_bytes());
    for (std::size_t i = 0; i < part.size(); ++i) {
      const int tag = part.image(i)[0];
      EXPECT_THAT(part.mask(i), Each(tag % 5)) << "of image " << tag;
      if (site < 0) continue;
      EXPECT_EQ(tag % 3, site);
      dealt.insert(tag);
      ++images;
    }
  };
  for (int s = 0; s < 3; ++s) {
    const auto& site = federation->sites[std::size_t(s)];
    EXPECT_EQ(site.name, names[std::size_t(s)]);
    for (const auto* part : {&site.data.train, &site.data.validation, &site.data.test}) {
      EXPECT_GT(part->size(), 0u);
      look(*part, s);
    }
  }
  const auto& consortium = federation->consortium;
  for (const auto* part : {&consortium.train, &consortium.validation, &consortium.test})
    look(*part, -1);
  EXPECT_GT(consortium.train.size(), 0u);
  EXPECT_EQ(dealt.size(), images) << "no image at two sites";
  EXPECT_EQ(images + consortium.train.size() + consortium.validation.size(), 36u);
}

TEST_F(Masks, ThatContradictEachOtherOnEqualImagesAreNoted) {
  std::string csv = "id,site\n";
  for (int i = 0; i < 24; ++i) {
    put_pair(std::to_string(i), plain(i < 4 ? 0 : i), plain(i == 1 ? 1 : 0));
    csv += std::to_string(i) + (i % 2 ? ",north\n" : ",south\n");
  }
  put("images.csv", csv);
  PartitionOptions partition;
  partition.minimum = 2;
  const auto federation = federate(good(), partition, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  EXPECT_EQ(federation->report.duplicates, 3u);
  EXPECT_THAT(federation->report.notes,
              testing::Contains("1 images occur with more than one label map"));
}

TEST_F(Masks, AreResampledWithoutNewClassesAndInStepWithTheirImages) {
  options_.masks = "class";
  options_.image_size = 16;
  const std::pair<int, int> shapes[] = {{61, 45}, {9, 7}, {40, 12}, {16, 16}, {33, 32}};
  for (const auto& [height, width] : shapes) {
    const auto id = std::to_string(height);
    put_pair(id, discs(255, 255, height, width), discs(255, 255, height, width));
    put_pair("classes" + id, plain(7, height, width), discs(3, 7, height, width));
  }
  const auto source = good();
  ASSERT_EQ(source.images.size(), 10u);
  for (std::size_t i = 0; i < 10; ++i) {
    const auto image = source.images.image(i), mask = source.images.mask(i);
    if (image[0] == 7) {
      EXPECT_EQ(values(mask), (std::set{0, 3, 7})) << i;
      continue;
    }
    int pure = 0;
    for (std::size_t p = 0; p < 256; ++p) {
      if (image[p] != 0 && image[p] != 255) continue;  // at an outline: a mean of both
      ++pure;
      EXPECT_EQ(mask[p], image[p]) << "image " << i << ", pixel " << p;
    }
    EXPECT_GT(pure, 128) << i;
    EXPECT_EQ(values(mask), (std::set{0, 255})) << i;
  }
}

TEST_F(Masks, AtTheirOwnSizeAreThoseOfTheFile) {
  options_.masks = "class";
  options_.channels = 3;
  const auto labels = discs(3, 7, 21, 30);
  put_pair("a", plain(50, 21, 30), labels);
  const auto entries = list_masked(options_);
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 1u);
  EXPECT_EQ(entries->front().image, "images/a.png");
  EXPECT_EQ(entries->front().label, "labels/a.png");
  const auto pair = read_masked(options_, entries->front());
  ASSERT_TRUE(pair) << pair.error().message;
  EXPECT_EQ(pair->image.shape.height, 21);
  EXPECT_EQ(pair->image.shape.width, 30);
  EXPECT_EQ(pair->image.shape.channels, 3);
  EXPECT_EQ(pair->image.pixels, std::vector<std::uint8_t>(21 * 30 * 3, 50));
  EXPECT_EQ(pair->mask, std::vector<std::uint8_t>(labels.data, labels.data + 21 * 30));
}

TEST_F(Masks, SkipAndListUnreadablePairsUpToTheLimit) {
  const auto png = encoded(plain(9, 64, 64));
  put_pair("1-good", plain(9), plain(1));
  put_pair("2-sizes", plain(9, 8, 9), plain(1, 9, 8));
  put_pair("3-colours", plain(9), plain(1, 8, 8, CV_8UC3));
  put_pair("4-image", plain(9), plain(1));
  put("images/4-image.png", png.substr(0, png.size() / 2));
  put_pair("5-labels", plain(9), plain(1));
  put("labels/5-labels.png", "hello");
  const auto source = good();
  ASSERT_EQ(source.images.size(), 1u);
  EXPECT_EQ(source.images.pixels.size(), 64u) << "nothing of a pair that was skipped stays";
  EXPECT_EQ(source.images.masks.size(), 64u);
  EXPECT_EQ(source.sites.size(), 1u);
  EXPECT_THAT(
      source.skipped,
      ElementsAre("images/2-sizes.png: its label map has 8 × 9 pixels, it has 9 × 8",
                  AllOf(HasSubstr("images/3-colours.png: "), HasSubstr("label map has one channel"),
                        HasSubstr("3 channels")),
                  HasSubstr("images/4-image.png: truncated"),
                  "images/5-labels.png: its label map: neither PNG nor JPEG nor BMP"));
  options_.max_unreadable = 4;
  EXPECT_EQ(good().skipped.size(), 4u);
  options_.max_unreadable = 3;
  EXPECT_THAT(error(), AllOf(HasSubstr("over 3 unreadable images (data.max_unreadable)"),
                             HasSubstr("images/2-sizes.png")));
  options_.max_unreadable = 0;
  EXPECT_THAT(error(), HasSubstr("over 0 unreadable images"));
}

TEST_F(Masks, RefuseAFolderWithoutALabelMapOrAnImage) {
  put_pair("a", plain(1), plain(0));
  put("images/b.png", encoded(plain(2)));
  EXPECT_THAT(error(), HasSubstr("labels/b.png: the label map is missing"));
  put("images.csv", "id\na\nc\n");
  EXPECT_THAT(error(), HasSubstr("images/c.png: images.csv names it"));
  put("images.csv", "id\na\n");
  EXPECT_EQ(good().images.size(), 1u) << "what is not listed need not be whole";
}

TEST_F(Masks, RefuseTwoImagesOfOneId) {
  put_pair("a", plain(1), plain(0));
  put("images/a.jpg", encoded(plain(1), ".jpg"));
  EXPECT_THAT(error(), AllOf(HasSubstr("images/a.jpg"), HasSubstr("images/a.png"),
                             HasSubstr("are the same image's")));
}

TEST_F(Masks, RefusePathsThatLeadOutOfTheFolder) {
  put_pair("a", plain(1), plain(0));
  put_pair("b", plain(2), plain(0));
  spill(dir_ / "secret.png", encoded(plain(3)));
  for (const std::string place : {"images/b.png", "labels/b.png"}) {
    const TempDir kept;
    std::filesystem::rename(root_ / place, kept / "kept.png");
    std::filesystem::create_symlink(dir_ / "secret.png", root_ / place);
    EXPECT_THAT(error(), HasSubstr("'" + place + "' leads out of the folder"));
    std::filesystem::remove(root_ / place);
    std::filesystem::copy(kept / "kept.png", root_ / place);
  }
  EXPECT_EQ(good().images.size(), 2u);
  const MaskedEntry escape{"x", "../secret.png", "labels/a.png", "", Split::kUnassigned};
  EXPECT_THAT(read_masked(options_, escape).error().message, HasSubstr("leads out of the folder"));
}

TEST_F(Masks, NameTheLineOfAMistakeInImagesCsv) {
  put_pair("a", plain(1), plain(0));
  const auto error_of = [&](const std::string& csv) {
    put("images.csv", csv);
    return error();
  };
  EXPECT_THAT(error_of("file\na.png\n"), HasSubstr("images.csv: column 'id' is wanted; it has file"));
  EXPECT_THAT(error_of("id,split\na,tset\n"), HasSubstr("images.csv: line 2: split 'tset'"));
  EXPECT_THAT(error_of("id\na\na\n"), HasSubstr("images.csv: line 3: 'a' stands twice"));
  EXPECT_THAT(error_of("id,site\na\n"), HasSubstr("images.csv: line 2: 1 fields"));
  EXPECT_THAT(error_of("id\n"), HasSubstr("no image in images/"));
}

TEST_F(Masks, NameWhatIsMissing) {
  EXPECT_THAT(error(), HasSubstr("no such folder"));
  std::filesystem::create_directories(root_ / "images");
  EXPECT_THAT(error(), HasSubstr("labels/ cannot be listed"));
  std::filesystem::create_directories(root_ / "labels");
  EXPECT_THAT(error(), HasSubstr("no image in images/"));
  options_.path = "";
  EXPECT_THAT(read().error().message, HasSubstr("data.path"));
}

TEST_F(Masks, StopAtTheByteLimitWhichCountsThemToo) {
  for (int i = 0; i < 4; ++i) put_pair(std::to_string(i), plain(i), plain(0));
  options_.max_bytes = 4 * (64 + 64) - 1;
  EXPECT_THAT(error(), AllOf(HasSubstr("4 images are over data.max_bytes (511)")));
  options_.max_bytes = 4 * (64 + 64);
  EXPECT_EQ(good().images.size(), 4u);
}

TEST_F(Masks, ChangeTheContentHashOfTheirSet) {
  put_pair("a", plain(1), discs(1, 1, 8, 8));
  const auto before = content_hash(good().images);
  EXPECT_EQ(content_hash(good().images), before);
  auto moved = discs(1, 1, 8, 8);
  moved.at<std::uint8_t>(0, 0) = 1;
  put_pair("a", plain(1), moved);
  EXPECT_NE(content_hash(good().images), before);
  put_pair("a", plain(1), discs(2, 5, 8, 8));
  EXPECT_EQ(content_hash(good().images), before) << "numbers of objects are no content";
}

}  // namespace
}  // namespace preceptor::data
