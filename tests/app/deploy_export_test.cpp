// preceptor deploy export, as a program that others call.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "models/stem.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;

/// What the program printed, both streams together, and its exit code.
struct Outcome {
  int code;
  std::string output;
};

Outcome export_model(const test::TempDir& dir, const std::vector<std::string>& words) {
  std::vector<std::string> command{PRECEPTOR_PROGRAM, "deploy", "export"};
  command.insert(command.end(), words.begin(), words.end());
  test::Process process(command, dir / "log");
  const int code = process.wait();
  return {code, process.output()};
}

TEST(DeployExport, WritesTheFileAndTellsWhatIsInIt) {
  test::TempDir dir;
  auto model = models::create_at_size({"shufflenet_v2", 0.5}, {2, 1, 28}).value();
  model.initialise(RandomStream(1, "deploy"));
  const auto file = (dir / "model.safetensors").string(), onnx = (dir / "model.onnx").string();
  ASSERT_TRUE(models::save_model(file, model));
  const auto done = export_model(dir, {file, "--format", "onnx", "--out", onnx, "--json"});
  ASSERT_EQ(done.code, 0) << done.output;
  const auto json = nlohmann::json::parse(done.output, nullptr, false);
  ASSERT_TRUE(json.is_object()) << done.output;
  EXPECT_EQ(json["opset"], 17);
  EXPECT_EQ(json["model"], "shufflenet_v2");
  EXPECT_EQ(json["bytes"], std::filesystem::file_size(onnx));
  EXPECT_EQ(json["input"], (nlohmann::json{"batch", 1, 28, 28}));
}

TEST(DeployExport, AFileThatIsNoModelIsTheCallersFault) {
  test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "model.safetensors", std::string_view("no model")));
  const auto done = export_model(dir, {(dir / "model.safetensors").string(), "--out", (dir / "model.onnx").string()});
  EXPECT_EQ(done.code, 2);
  EXPECT_THAT(done.output, testing::HasSubstr("model.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(dir / "model.onnx"));
}

}  // namespace
