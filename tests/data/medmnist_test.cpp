#include <gmock/gmock.h>

#include <cstring>
#include <map>

#include "data/data.h"
#include "data/npz.h"
#include "tests/data/made.h"
#include "tests/support/temp_dir.h"

namespace preceptor::data {
namespace {

using test::shared_data;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// `count` images of 4×4 whose pixels are 10·row number.
std::string grey(std::size_t count, const std::string& shape = "") {
  std::string body;
  for (std::size_t i = 0; i < count; ++i) body.append(16, char(10 * i));
  return npy("|u1", shape.empty() ? "(" + std::to_string(count) + ", 4, 4)" : shape, body);
}

std::string labels(const std::vector<std::uint8_t>& values) {
  return npy("|u1", "(" + std::to_string(values.size()) + ", 1)", {values.begin(), values.end()});
}

Entries good() {
  return {{"train_images.npy", grey(5)}, {"train_labels.npy", labels({0, 1, 2, 0, 1})},
          {"val_images.npy", grey(2)},   {"val_labels.npy", labels({1, 0})},
          {"test_images.npy", grey(3)},  {"test_labels.npy", labels({2, 2, 0})}};
}

class MedMnist : public testing::Test {
 protected:
  Result<Source> read(const Entries& entries, bool deflate = true) {
    write_zip(path_, entries, deflate);
    return read_path();
  }
  Result<Source> read_path() {
    options_.path = path_.string();
    return read_source(options_, 1);
  }
  // Reads the good archive with one entry replaced; wants an error that names file and entry.
  std::string error_with(const std::string& name, const std::string& content) {
    auto entries = good();
    for (auto& [entry, bytes] : entries)
      if (entry == name) bytes = content;
    const auto source = read(entries);
    if (source) return "no error";
    EXPECT_THAT(source.error().message,
                AllOf(HasSubstr(path_.string() + ": "), HasSubstr(name + ": ")));
    return source.error().message;
  }

  TempDir dir_;
  std::filesystem::path path_ = dir_ / "set.npz";
  SourceOptions options_ = source_options("medmnist", "", 4);
};

TEST_F(MedMnist, ReadsStoredAndDeflatedArchivesAlike) {
  for (const bool deflate : {false, true}) {
    const auto source = read(good(), deflate);
    ASSERT_TRUE(source) << source.error().message;
    EXPECT_THAT(source->images.labels, ElementsAre(0, 1, 2, 0, 1, 1, 0, 2, 2, 0));
    EXPECT_EQ(source->images.image(4)[0], 40);
    EXPECT_EQ(source->images.image(9)[15], 20);
    EXPECT_EQ(source->splits[4], Split::kTrain);
    EXPECT_EQ(source->splits[5], Split::kValidation);
    EXPECT_EQ(source->splits[7], Split::kTest);
    EXPECT_THAT(source->images.classes, ElementsAre("class-0", "class-1", "class-2"));
    EXPECT_TRUE(source->site_names.empty());
  }
}

TEST_F(MedMnist, ReadsLabelsOfAnyIntegerTypeAndOneDimension) {
  auto entries = good();
  std::string wide;
  for (const std::int64_t label : {0, 1, 2, 0, 1})
    wide.append(reinterpret_cast<const char*>(&label), 8);
  entries[1].second = npy("<i8", "(5,)", wide);
  entries[3].second = npy("<u2", "(2, 1)", std::string("\1\0\0\0", 4));
  const auto source = read(entries);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(source->images.labels, ElementsAre(0, 1, 2, 0, 1, 1, 0, 2, 2, 0));
}

TEST_F(MedMnist, TurnsColourToLumaAndGreyToColour) {
  auto entries = good();
  std::string red;
  for (int i = 0; i < 16; ++i) red += std::string("\xff\0\0", 3);
  entries[0] = {"train_images.npy", npy("|u1", "(1, 4, 4, 3)", red)};
  entries[1].second = labels({0});
  auto source = read(entries);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(source->images.image(0)[0], 76);  // 0.299 · 255
  options_.channels = 3;
  source = read_path();
  ASSERT_TRUE(source);
  EXPECT_THAT(source->images.image(0).first(3), ElementsAre(255, 0, 0));
  EXPECT_THAT(source->images.image(2).first(3), ElementsAre(10, 10, 10));
}

TEST_F(MedMnist, ShrinksByAreaAndEnlarges) {
  std::string ramp;
  for (int i = 0; i < 256; ++i) ramp += char((i / 16 % 2) * 100);  // stripes, each one row high
  auto entries = good();
  entries[0].second = npy("|u1", "(1, 16, 16)", ramp);
  entries[1].second = labels({0});
  options_.image_size = 8;
  const auto source = read(entries);
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_THAT(source->images.image(0), testing::Each(50));
  EXPECT_THAT(source->images.image(2), testing::Each(10));  // 4×4 of tens, enlarged
}

TEST_F(MedMnist, SaysWhatItCannotRead) {
  const std::string floats(5 * 16 * 4, '\0');
  EXPECT_THAT(error_with("train_images.npy", npy("<f4", "(5, 4, 4)", floats)), HasSubstr("<f4"));
  EXPECT_THAT(error_with("train_images.npy", npy("<i4", "(5, 4, 4)", floats)),
              HasSubstr("images are uint8"));
  EXPECT_THAT(error_with("train_labels.npy", npy(">i4", "(5, 1)", std::string(20, '\0'))),
              HasSubstr(">i4"));
  EXPECT_THAT(error_with("train_images.npy", npy("|u1", "(5, 4, 4, 4)", floats)),
              HasSubstr("volumes"));
  EXPECT_THAT(error_with("train_labels.npy", npy("|u1", "(5, 14)", std::string(70, '\0'))),
              HasSubstr("several labels"));
  EXPECT_THAT(
      error_with("train_images.npy", npy("|u1", "(5, 4, 4)", std::string(80, '\0'), "True")),
      HasSubstr("Fortran"));
}

TEST_F(MedMnist, ChecksLabels) {
  EXPECT_THAT(error_with("val_labels.npy", labels({1, 0, 1})),
              HasSubstr("shape (3, 1) for 2 images"));
  EXPECT_THAT(error_with("val_labels.npy", npy("|i1", "(2, 1)", "\1\xff")),
              HasSubstr("label -1 at row 1"));
  EXPECT_THAT(error_with("val_labels.npy", npy("<u8", "(2, 1)", std::string(16, '\xff'))),
              HasSubstr("2^63"));
  EXPECT_THAT(
      error_with("val_labels.npy", npy("<i4", "(2, 1)", std::string("\0\0\0\0\0\0\0\x7f", 8))),
      HasSubstr("0 to 4095"));
}

TEST_F(MedMnist, RefusesLyingShapes) {
  const std::string body(80, '\0');
  for (const auto* shape : {"(6, 4, 4)", "(4, 4, 4)", "(5, 4, 4, 1, 2)", "()"})
    EXPECT_THAT(error_with("train_images.npy", npy("|u1", shape, body)), HasSubstr("wants"))
        << shape;
  for (const auto* shape : {"(4294967296, 4294967296, 4)", "(0, 4294967296, 4294967297)",
                            "(18446744073709551615, 2, 2)"})
    EXPECT_THAT(error_with("train_images.npy", npy("|u1", shape, body)), HasSubstr("overflows"))
        << shape;
  EXPECT_THAT(error_with("train_images.npy", npy("|u1", "(18446744073709551616, 1, 1)", body)),
              HasSubstr("whole number"));
  EXPECT_THAT(error_with("train_images.npy", npy("|u1", "(1, 80, 1, 1, 1, 1, 1, 1, 1)", body)),
              HasSubstr("over 8 dimensions"));
}

TEST_F(MedMnist, RefusesBrokenHeaders) {
  const auto whole = grey(5);
  EXPECT_THAT(error_with("train_images.npy", "hello, I am no array at all"), HasSubstr("NUMPY"));
  EXPECT_THAT(error_with("train_images.npy", ""), HasSubstr("truncated"));
  EXPECT_THAT(error_with("train_images.npy", whole.substr(0, 9)), HasSubstr("truncated"));
  EXPECT_THAT(error_with("train_images.npy", whole.substr(0, 60)),
              HasSubstr("truncated npy header"));
  auto version = whole;
  version[6] = 9;
  EXPECT_THAT(error_with("train_images.npy", version), HasSubstr("version 9"));
  auto huge = whole;
  huge.replace(6, 6, std::string("\x02\x00\xff\xff\xff\x7f", 6));
  EXPECT_THAT(error_with("train_images.npy", huge), HasSubstr("at most 65536"));
  for (const auto* text :
       {"{'descr': '|u1', 'shape': (5, 4, 4)}", "{'descr': '|u1', 'descr': '|u1'}", "{'x': 1}",
        "{'descr': '|u1'", "[]", "", "{'shape': (1 2)}", "{'fortran_order': Maybe}"}) {
    const std::string head =
        std::string("\x93NUMPY\x01\x00", 8) + char(std::strlen(text)) + '\0' + text;
    EXPECT_THAT(error_with("train_images.npy", head + std::string(80, '\0')),
                HasSubstr("npy header"))
        << text;
  }
}

TEST_F(MedMnist, SaysToDownloadAgainWhatIsTruncated) {
  write_zip(path_, good());
  const auto whole = slurp(path_);
  for (std::size_t keep = 0; keep < whole.size(); keep += 7) {
    spill(path_, whole.substr(0, keep));
    const auto source = read_path();
    ASSERT_FALSE(source) << keep;
    EXPECT_THAT(source.error().message, testing::StartsWith(path_.string())) << keep;
    EXPECT_THAT(source.error().message, testing::EndsWith("download it again")) << keep;
  }
}

TEST_F(MedMnist, FindsADamagedPixelByTheArchivesChecksum) {
  write_zip(path_, good(), false);
  auto bytes = slurp(path_);
  bytes[bytes.find(std::string(16, char(30)))] ^= 1;  // the fourth training image
  spill(path_, bytes);
  const auto source = read_path();
  ASSERT_FALSE(source);
  EXPECT_EQ(source.error().code, Code::kCorrupt);
}

TEST_F(MedMnist, RefusesAZipBombBeforeAllocating) {
  auto entries = good();  // 64 MiB of zeros in 64 KiB: sound, but over the caller's limit
  entries[0].second = npy("|u1", "(4194304, 4, 4)", std::string(64 << 20, '\0'));
  options_.max_bytes = 1 << 20;
  const auto source = read(entries);
  ASSERT_FALSE(source);
  EXPECT_EQ(source.error().code, Code::kRefused);
  EXPECT_THAT(source.error().message, HasSubstr("max_bytes"));
}

TEST_F(MedMnist, RefusesAnEntryThatStatesMoreThanDeflateCanGive) {
  // An archive that states 2 GiB for a few bytes: sizes in the local and the central header are
  // overwritten.
  auto entries = good();
  entries[0].second = npy("|u1", "(134217728, 4, 4)", std::string(80, '\0'));
  write_zip(path_, entries);
  auto bytes = slurp(path_);
  const std::uint32_t real = std::uint32_t(entries[0].second.size()),
                      stated = 128 + (std::uint32_t{1} << 31);
  const std::string from(reinterpret_cast<const char*>(&real), 4),
      to(reinterpret_cast<const char*>(&stated), 4);
  bytes.replace(bytes.find("PK\3\4") + 22, 4, to);
  bytes.replace(bytes.find("PK\1\2") + 24, 4, to);
  spill(path_, bytes);
  const auto source = read_path();
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().message, HasSubstr("cannot come out of"));
}

TEST_F(MedMnist, NamesAMissingFileAndAMissingEntry) {
  const auto none = read_path();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kNotFound);
  auto entries = good();
  entries.pop_back();
  const auto lacking = read(entries);
  ASSERT_FALSE(lacking);
  EXPECT_THAT(lacking.error().message, HasSubstr("test_labels.npy: not in the archive"));
  spill(path_, "this is not a zip archive");
  EXPECT_FALSE(read_path());
  options_.path.clear();
  path_.clear();
  EXPECT_FALSE(read_path());
}

TEST(NpyInteger, WidensEverySignedAndUnsignedType) {
  const std::byte ones[8]{std::byte{0xfe}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff},
                          std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xff}};
  NpyHeader header;
  for (const std::size_t bytes : {1, 2, 4, 8}) {
    header.item_bytes = bytes;
    header.kind = 'i';
    EXPECT_EQ(npy_integer(header, ones).value(), -2);
    header.kind = 'u';
    if (bytes < 8) {
      EXPECT_EQ(npy_integer(header, ones).value(), (std::int64_t{1} << 8 * bytes) - 2);
    }
  }
  EXPECT_FALSE(npy_integer(header, ones));
}

TEST(RealData, PneumoniaMnistHasItsOfficialCountsAndItsEightKnownDuplicates) {
  const auto npz = shared_data("pneumoniamnist/pneumoniamnist.npz");
  if (npz.empty()) GTEST_SKIP() << "needs ../shared/data/pneumoniamnist";
  const auto options = source_options("medmnist", npz);
  const auto source = read_source(options, 1);
  ASSERT_TRUE(source) << source.error().message;
  std::map<Split, std::size_t> counts;
  for (const auto split : source->splits) ++counts[split];
  EXPECT_EQ(counts[Split::kTrain], 4708u);
  EXPECT_EQ(counts[Split::kValidation], 524u);
  EXPECT_EQ(counts[Split::kTest], 624u);
  EXPECT_THAT(source->images.classes, ElementsAre("normal", "pneumonia"));
  EXPECT_THAT(source->images.class_counts(), ElementsAre(1214 + 135 + 234, 3494 + 389 + 390));

  PartitionOptions partition;
  partition.method = "dirichlet";
  const auto federation = federate(*source, partition, 1);
  ASSERT_TRUE(federation) << federation.error().message;
  // 8 pictures stand in both, some of them twice in training: 10 training rows go.
  EXPECT_EQ(federation->report.duplicates, 10u);
  EXPECT_THAT(federation->report.notes, testing::Contains(HasSubstr("10 images (8 distinct)")));
  std::size_t train = 0, validation = 0;
  for (const auto& site : federation->sites)
    train += site.data.train.size(), validation += site.data.validation.size();
  EXPECT_EQ(train, 4698u);
  EXPECT_EQ(validation, 524u);
  EXPECT_EQ(federation->consortium.test.size(), 624u);
}

}  // namespace
}  // namespace preceptor::data
