#include "common/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "tests/support/temp_dir.h"

namespace preceptor {
namespace {

std::size_t entries(const std::filesystem::path& dir) {
  return std::size_t(std::distance(std::filesystem::directory_iterator(dir), {}));
}

TEST(File, WhatIsWrittenIsReadAndNothingElseIsLeft) {
  const test::TempDir dir;
  for (const auto& text :
       {std::string("first"), std::string("second\0line\n", 12), std::string()}) {
    ASSERT_TRUE(write_file(dir / "a", text));
    EXPECT_EQ(*read_text(dir / "a", 100), text);
    const auto bytes = read_file(dir / "a", 100);
    ASSERT_TRUE(bytes);
    EXPECT_TRUE(std::ranges::equal(*bytes, bytes_of(text)));
    EXPECT_EQ(entries(dir.path()), 1u);
  }
}

TEST(File, MoreThanTheCapIsRefused) {
  const test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "a", "12345"));
  EXPECT_TRUE(read_file(dir / "a", 5));
  const auto refused = read_file(dir / "a", 4);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kRefused);
  EXPECT_NE(refused.error().message.find((dir / "a").string()), std::string::npos);
}

TEST(File, WhatIsNotAFileIsAnError) {
  const test::TempDir dir;
  EXPECT_EQ(read_file(dir / "none", 5).error().code, Code::kNotFound);
  EXPECT_EQ(read_file(dir.path(), 1 << 20).error().code, Code::kInvalid);
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(read_file(dir / "pipe", 5).error().code, Code::kInvalid)
      << "and it must not wait for a writer";
}

TEST(File, AFailedWriteLeavesTheOldFileAndNoOther) {
  const test::TempDir dir;
  EXPECT_EQ(write_file(dir / "none" / "a", "x").error().code, Code::kNotFound);
  std::filesystem::create_directories(dir / "taken" / "inside");
  EXPECT_EQ(write_file(dir / "taken", "x").error().code, Code::kIo);
  EXPECT_TRUE(std::filesystem::is_directory(dir / "taken"));
  EXPECT_EQ(entries(dir.path()), 1u);
}

TEST(File, ANewFileHasTheModeAskedForWhateverItReplaces) {
  const test::TempDir dir;
  const auto mode = [&] {
    struct stat info {};
    EXPECT_EQ(::stat((dir / "key").c_str(), &info), 0);
    return info.st_mode & 0777;
  };
  ASSERT_TRUE(write_file(dir / "key", "open", 0644));
  EXPECT_EQ(mode(), 0644u);
  ASSERT_TRUE(write_file(dir / "key", "secret", 0600));
  EXPECT_EQ(mode(), 0600u);
}

TEST(File, AReaderSeesTheOldFileOrTheNewOneNeverHalf) {
  const test::TempDir dir;
  const std::string texts[] = {std::string(20000, 'a'), std::string(30000, 'b')};
  ASSERT_TRUE(write_file(dir / "f", texts[0]));
  std::atomic<bool> done = false;
  std::jthread writer([&] {
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(write_file(dir / "f", texts[i % 2]));
    done = true;
  });
  int reads = 0;
  do {
    const auto text = read_text(dir / "f", 1 << 20);
    ASSERT_TRUE(text) << text.error().message;
    ASSERT_TRUE(*text == texts[0] || *text == texts[1]) << text->size();
    ++reads;
  } while (!done);
  EXPECT_GT(reads, 0);
}

TEST(File, WritersOfOneFileDoNotDisturbEachOther) {
  const test::TempDir dir;
  std::vector<std::jthread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([&, text = std::string(50000, char('a' + i))] {
      for (int j = 0; j < 20; ++j) ASSERT_TRUE(write_file(dir / "f", text));
    });
  }
  writers.clear();
  const auto text = read_text(dir / "f", 1 << 20);
  ASSERT_TRUE(text);
  EXPECT_EQ(*text, std::string(50000, text->at(0)));
  EXPECT_EQ(entries(dir.path()), 1u);
}

}  // namespace
}  // namespace preceptor
