#include <gmock/gmock.h>

#include <opencv2/imgcodecs.hpp>

#include "data/data.h"
#include "data/image.h"
#include "tests/data/made.h"
#include "tests/support/temp_dir.h"

namespace preceptor::data {
namespace {

using test::shared_data;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string encoded(const std::string& extension, int value, int height = 16, int width = 16,
                    int type = CV_8UC1) {
  std::vector<std::uint8_t> bytes;
  cv::imencode(extension, cv::Mat(height, width, type, cv::Scalar::all(value)), bytes);
  return {bytes.begin(), bytes.end()};
}

class Folder : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& content) { spill(root_ / name, content); }
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
  std::filesystem::path root_ = dir_ / "images";
  SourceOptions options_ = source_options("folder", root_.string(), 8);
};

TEST_F(Folder, TakesTheClassFromTheFirstFolderInSortedOrder) {
  put("sick/b.jpeg", encoded(".jpg", 200));
  put("sick/2024/a.BMP", encoded(".bmp", 100));
  put("healthy/z.png", encoded(".png", 50));
  put("healthy/notes.txt", "not an image");
  put("SOURCE.png", "beside the classes");
  put(".cache/x.png", "hidden");
  const auto source = good();
  EXPECT_THAT(source.images.classes, ElementsAre("healthy", "sick"));
  EXPECT_THAT(source.images.labels, ElementsAre(0, 1, 1));
  EXPECT_EQ(source.images.image(0)[0], 50);
  EXPECT_EQ(source.images.image(1)[0], 100);
  EXPECT_EQ(source.images.image(2)[0], 200);
  EXPECT_TRUE(source.site_names.empty());
  EXPECT_TRUE(source.skipped.empty());
}

TEST_F(Folder, SortsNumberedClassesByNumber) {
  for (const auto* name : {"10", "9", "other"})
    put(std::string(name) + "/a.png", encoded(".png", 1));
  EXPECT_THAT(good().images.classes, ElementsAre("9", "10", "other"));
}

TEST_F(Folder, ReadsColourSixteenBitAndAlpha) {
  options_.channels = 3;
  std::vector<std::uint8_t> bytes;
  cv::imencode(".png", cv::Mat(8, 8, CV_8UC4, cv::Scalar(1, 2, 3, 4)), bytes);
  put("a/alpha.png", {bytes.begin(), bytes.end()});
  put("a/deep.png", encoded(".png", 0x1234, 8, 8, CV_16UC1));
  const auto source = good();
  EXPECT_THAT(source.images.image(0).first(3), ElementsAre(3, 2, 1));  // OpenCV's order is BGR
  EXPECT_THAT(source.images.image(1).first(3), testing::Each(0x12));
}

TEST_F(Folder, TakesLabelsSitesAndSplitsFromLabelsCsv) {
  put("x/1.png", encoded(".png", 1));
  put("x/2.png", encoded(".png", 2));
  put("3.png", encoded(".png", 3));
  put("labels.csv",
      "\xef\xbb\xbf"
      "split,file,label,site\r\ntest,x/2.png,sick,west\r\n,\"x/1.png\",well,\r\ntrain,./"
      "3.png,sick,east\r\n");
  const auto source = good();
  EXPECT_THAT(source.images.classes, ElementsAre("sick", "well"));
  EXPECT_THAT(source.images.labels, ElementsAre(0, 1, 0));
  EXPECT_THAT(source.site_names, ElementsAre("east", "west"));
  EXPECT_THAT(source.sites, ElementsAre(1, -1, 0));
  EXPECT_THAT(source.splits, ElementsAre(Split::kTest, Split::kUnassigned, Split::kTrain));
  EXPECT_EQ(source.images.image(0)[0], 2);
}

TEST_F(Folder, SkipsAndListsUnreadableImagesUpToTheLimit) {
  const auto png = encoded(".png", 9, 64, 64), jpeg = encoded(".jpg", 9, 64, 64);
  put("a/1-good.png", png);
  put("a/2-short.png", png.substr(0, png.size() / 2));
  put("a/3-short.jpg", jpeg.substr(0, jpeg.size() - 20));
  put("a/4-text.jpg", "hello");
  put("a/5-empty.bmp", "");
  put("labels.csv",
      "file,label\na/1-good.png,0\na/2-short.png,0\na/3-short.jpg,0\na/4-text.jpg,0\na/"
      "5-empty.bmp,0\n"
      "a/6-gone.png,0\n");
  const auto source = good();
  EXPECT_EQ(source.images.size(), 1u);
  EXPECT_THAT(source.skipped,
              ElementsAre(HasSubstr("a/2-short.png: truncated"), "a/3-short.jpg: JPEG: truncated",
                          "a/4-text.jpg: neither PNG nor JPEG nor BMP",
                          "a/5-empty.bmp: neither PNG nor JPEG nor BMP", "a/6-gone.png: missing"));
  options_.max_unreadable = 4;
  EXPECT_THAT(error(), AllOf(HasSubstr("over 4 unreadable images"), HasSubstr("a/2-short.png")));
}

TEST_F(Folder, RefusesAnImageOfTooManyPixelsUnread) {
  auto png = encoded(".png", 9);
  png.replace(16, 8, std::string("\0\1\0\0\0\1\0\0", 8));  // 65536 × 65536 in IHDR
  put("a/bomb.png", png);
  put("a/good.png", encoded(".png", 9));
  EXPECT_THAT(good().skipped,
              ElementsAre(AllOf(HasSubstr("a/bomb.png: 65536 × 65536"), HasSubstr("at most"))));
}

TEST_F(Folder, RefusesPathsThatLeadOutOfTheFolder) {
  put("in/a.png", encoded(".png", 1));
  spill(dir_ / "secret.png", encoded(".png", 2));
  std::filesystem::create_symlink(dir_ / "secret.png", root_ / "in/link.png");
  const std::vector<std::string> escapes{"../secret.png", "in/../../secret.png",
                                         dir_ / "secret.png", root_ / "in/a.png", "in/link.png"};
  for (const auto& file : escapes) {
    put("labels.csv", "file,label\n" + file + ",0\n");
    EXPECT_THAT(error(), HasSubstr("leads out of the folder")) << file;
  }
  std::filesystem::remove(root_ / "labels.csv");  // the link is found by listing, too
  EXPECT_THAT(error(), HasSubstr("leads out of the folder"));
}

TEST_F(Folder, NamesTheLineOfAMistakeInLabelsCsv) {
  put("a.png", encoded(".png", 1));
  const auto error_of = [&](const std::string& csv) {
    put("labels.csv", csv);
    return error();
  };
  EXPECT_THAT(error_of("name,label\na.png,0\n"),
              HasSubstr("labels.csv: columns 'file' and 'label'"));
  EXPECT_THAT(error_of("file,label,split\na.png,0,tset\n"),
              HasSubstr("labels.csv: line 2: split 'tset'"));
  EXPECT_THAT(error_of("file,label\na.png,0\n./a.png,1\n"),
              HasSubstr("line 3: 'a.png' stands in line 2 too"));
  EXPECT_THAT(error_of("file,label\na.png,\n"), HasSubstr("line 2: file or label is empty"));
  EXPECT_THAT(error_of("file,label\na.png\n"), HasSubstr("line 2: 1 fields"));
  EXPECT_THAT(error_of("file,label\n"), HasSubstr("no images"));
}

TEST_F(Folder, NamesAMissingOrEmptyFolder) {
  EXPECT_THAT(error(), HasSubstr("no such folder"));
  std::filesystem::create_directories(root_);
  EXPECT_THAT(error(), HasSubstr("no <class>/<image>.png"));
}

TEST_F(Folder, StopsAtTheByteLimit) {
  for (int i = 0; i < 4; ++i) put("a/" + std::to_string(i) + ".png", encoded(".png", i));
  options_.max_bytes = 3 * 64;
  EXPECT_THAT(error(), HasSubstr("max_bytes"));
  options_.max_bytes = 4 * 64;
  EXPECT_EQ(good().images.size(), 4u);
}

TEST(PeekImage, ReadsTheShapeOfEveryFormat) {
  for (const auto* extension : {".png", ".jpg", ".bmp"}) {
    const auto file = encoded(extension, 5, 30, 20, CV_8UC3);
    const auto shape = peek_image(bytes_of(file));
    ASSERT_TRUE(shape) << extension << shape.error().message;
    EXPECT_EQ(shape->height, 30) << extension;
    EXPECT_EQ(shape->width, 20) << extension;
    EXPECT_EQ(shape->channels, 3) << extension;
    for (std::size_t keep = 0; keep < 24; ++keep)
      EXPECT_FALSE(peek_image(bytes_of(file.substr(0, keep))));
  }
}

TEST(RealData, MedNistIsReadInFull) {
  const auto folder = shared_data("mednist");
  if (folder.empty()) GTEST_SKIP() << "needs ../shared/data/mednist";
  DataOptions options;
  options.kind = "folder";
  options.path = folder.string();
  options.image_size = 32;
  options.partition.method = "dirichlet";
  const auto federation = load(options, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  const auto& test = federation->consortium.test;
  EXPECT_THAT(test.classes,
              ElementsAre("AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"));
  std::size_t images = 0;
  for (const auto& site : federation->sites)
    images += site.data.train.size() + site.data.validation.size() + site.data.test.size();
  EXPECT_TRUE(federation->report.skipped.empty());
  EXPECT_EQ(images + federation->report.duplicates, 6000u);
  EXPECT_NEAR(double(test.size()), 1500, 10);
}

}  // namespace
}  // namespace preceptor::data
