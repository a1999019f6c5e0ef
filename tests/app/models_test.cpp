// preceptor models, as a program that others read.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "models/model.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;

/// Standard output alone, and the exit code.
struct Outcome {
  int code;
  std::string output;
};

Outcome list_models(const std::string& words) {
  test::TempDir dir;
  const auto out = (dir / "out").string();
  test::Process process({"/bin/sh", "-c", std::string(PRECEPTOR_PROGRAM) + " models " + words + " > " + out}, dir / "log");
  const int code = process.wait();
  return {code, read_text(out, 1 << 24).value_or("")};
}

TEST(Models, JsonAloneIsPrintedAndHoldsEverySizeOfEveryArchitecture) {
  const auto done = list_models("--json --no-timing --classes 9 --channels 3");
  ASSERT_EQ(done.code, 0);
  const auto json = nlohmann::json::parse(done.output, nullptr, false);
  ASSERT_TRUE(json.is_array()) << done.output;
  std::size_t sizes = 0;
  for (const auto& name : models::zoo().names()) sizes += (*models::zoo().find(name))->sizes.size();
  EXPECT_EQ(json.size(), sizes);
  for (const auto& item : json) {
    EXPECT_GT(item["parameters"].get<std::int64_t>(), 0) << item;
    EXPECT_GT(item["macs"].get<std::int64_t>(), 0) << item;
    EXPECT_TRUE(models::zoo().find(item["name"])) << item;
    EXPECT_FALSE(item["paradigm"].get<std::string>().empty()) << item;
    EXPECT_FALSE(item["task"].get<std::string>().empty()) << item;
  }
}

TEST(Models, CountsAreThePublishedOnes) {
  const auto done = list_models("--json --no-timing --classes 9 --channels 3 --size 28 --paradigm CNN");
  for (const auto& item : nlohmann::json::parse(done.output))
    if (item["name"] == "shufflenet_v2" && item["width"] == 0.5) {
      EXPECT_EQ(item["parameters"], 351017);
      EXPECT_EQ(item["macs"], 9378192);
      return;
    }
  FAIL() << "no shufflenet_v2 0.5 among the CNNs:\n" << done.output;
}

TEST(Models, TheTableNamesEachAndTellsItsTime) {
  const auto done = list_models("--paradigm CNN");
  EXPECT_EQ(done.code, 0);
  EXPECT_THAT(done.output, testing::HasSubstr("shufflenet_v2"));
  EXPECT_THAT(done.output, testing::HasSubstr("343,410"));
  EXPECT_THAT(done.output, testing::HasSubstr("arXiv:1807.11164"));
  EXPECT_THAT(done.output, testing::ContainsRegex("9\\.0 +[0-9]+\\.[0-9][0-9] "));
}

TEST(Models, AFilterThatFitsNothingIsAWrongCall) { EXPECT_EQ(list_models("--task nothing").code, 2); }

}  // namespace
