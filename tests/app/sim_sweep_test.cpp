// preceptor sim sweep: variations in one table, resumable.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kBase = R"(
seed: 5
data:
  kind: phantom
  phantom: {images: 160, sites: 2}
  partition: {method: site, consortium: 0.3}
teacher:
  model: {name: shufflenet_v2, width: 0.5, stem: small}
  training: {epochs: 1}
student: {training: {epochs: 1, views: 1}}
federation: {rounds: 1, quorum: 2}
personalise_epochs: 0
)";

constexpr const char* kSweep = R"(
base: base.yaml
set: [training.learning_rate=0.01]
runs:
  - {name: plain}
  - {name: coarse, set: ["update.weights=[{codec: quantize, bits: 2}, {codec: zstd}]"]}
)";

struct Outcome {
  int code;
  std::string output;
};

class Sweep : public testing::Test {
 protected:
  Sweep() {
    EXPECT_TRUE(write_file(dir_ / "base.yaml", std::string(kBase)));
    EXPECT_TRUE(write_file(dir_ / "sweep.yaml", std::string(kSweep)));
  }
  Outcome sweep(std::vector<std::string> more = {}) {
    std::vector<std::string> words{PRECEPTOR_PROGRAM, "sim", "sweep", (dir_ / "sweep.yaml").string(), "--out", (dir_ / "out").string()};
    words.insert(words.end(), more.begin(), more.end());
    test::Process process(words, dir_ / "run.log");
    const int code = process.wait();
    return {code, process.output()};
  }
  std::string text(const std::string& file) { return read_text(dir_ / "out" / file, 1 << 24).value_or("not there"); }
  nlohmann::json json(const std::string& file) { return nlohmann::json::parse(text(file), nullptr, false); }
  bool there(const std::string& file) { return std::filesystem::exists(dir_ / "out" / file); }
  test::TempDir dir_;
};

TEST_F(Sweep, ComparesItsRunsAndGoesOnWhereItWasStopped) {
  const auto first = sweep();
  ASSERT_EQ(first.code, 0) << first.output;
  const auto lines = json("sweep.json");
  ASSERT_EQ(lines.size(), 2u) << first.output;
  EXPECT_EQ(lines[0]["run"], "plain");
  EXPECT_EQ(lines[1]["run"], "coarse");
  EXPECT_GT(lines[0]["bytes_up"].get<double>(), lines[1]["bytes_up"].get<double>());
  EXPECT_NE(lines[0]["model_hash"], lines[1]["model_hash"]);
  const auto table = text("sweep.md");
  EXPECT_EQ(std::ranges::count(table, '\n'), 4);
  EXPECT_THAT(table, HasSubstr("| run | paradigm |"));
  EXPECT_THAT(table, HasSubstr("\n| plain | CNN | "));
  EXPECT_THAT(table, HasSubstr("\n| coarse | CNN | "));
  EXPECT_THAT(first.output, HasSubstr(table));
  EXPECT_TRUE(there("plain/teacher.safetensors"));
  EXPECT_FALSE(there("coarse/teacher.safetensors")) << "the second run took the first one's";
  EXPECT_EQ(lines[0]["teacher"], lines[1]["teacher"]);
  EXPECT_EQ(lines[0]["distilled"], lines[1]["distilled"]) << "the second run took the first one's student, too";
  EXPECT_THAT(text("sweep.svg"), AllOf(HasSubstr("<svg xmlns"), HasSubstr("plain"), HasSubstr("coarse"), HasSubstr("AUC"), HasSubstr("</svg>")));
  EXPECT_TRUE(there("plain/report.html") && there("coarse/report.html"));

  // A summary holds its run's wall time: the same bytes are the same run.
  const auto plain = text("plain/summary.json"), coarse = text("coarse/summary.json");
  const auto again = sweep({"--json"});
  ASSERT_EQ(again.code, 0) << again.output;
  EXPECT_EQ(text("plain/summary.json"), plain);
  EXPECT_EQ(text("coarse/summary.json"), coarse);
  EXPECT_THAT(again.output, HasSubstr("run plain (1 of 2): done before"));
  EXPECT_THAT(again.output, HasSubstr("run coarse (2 of 2): done before"));
  EXPECT_EQ(json("sweep.json")[1]["model_hash"], lines[1]["model_hash"]);

  std::filesystem::remove(dir_ / "out" / "coarse" / "summary.json");  // stopped in the second run
  const auto resumed = sweep();
  ASSERT_EQ(resumed.code, 0) << resumed.output;
  EXPECT_EQ(text("plain/summary.json"), plain);
  EXPECT_THAT(resumed.output, Not(HasSubstr("run coarse (2 of 2): done before")));
  EXPECT_FALSE(there("coarse/teacher.safetensors"));
  EXPECT_EQ(json("sweep.json")[1]["model_hash"], lines[1]["model_hash"]) << "the same teacher, the same run";
  EXPECT_EQ(json("sweep.json")[1]["test"], lines[1]["test"]);
}

TEST_F(Sweep, TellsEveryMistakeBeforeTheFirstRun) {
  const auto refused = sweep({"--set", "federation.round=2"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.output, HasSubstr("run plain: "));
  EXPECT_THAT(refused.output, HasSubstr("federation.round: unknown key; did you mean 'rounds'?"));
  ASSERT_TRUE(write_file(dir_ / "sweep.yaml", std::string("base: base.yaml\nruns: [{name: a}, {name: a}]\n")));
  const auto twice = sweep();
  EXPECT_EQ(twice.code, 2);
  EXPECT_THAT(twice.output, HasSubstr("run 'a': a name of its own"));
  EXPECT_FALSE(there("plain"));
}

}  // namespace
