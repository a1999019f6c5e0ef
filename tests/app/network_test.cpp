// The program as users run it: real processes on the loopback, and what bad input gets.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "common/file.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace {

using namespace preceptor;
using test::Process;
using test::TempDir;

constexpr const char* kJob = R"(
seed: 5
data:
  kind: phantom
  phantom: {images: 240, sites: 3}
  partition: {method: site, consortium: 0.2}
teacher: {training: {epochs: 0}}
student: {training: {epochs: 1}}
federation: {rounds: 2, sites: 3, quorum: 3}
training: {epochs: 1, learning_rate: 0.01}
personalise_epochs: 1
)";

std::string tls(const std::filesystem::path& ca, const std::string& name, const std::string& endpoint) {
  const auto folder = (ca / name).string();
  return "link:\n  endpoint: " + endpoint + "\n  certificate: " + folder + "/cert.pem\n  key: " + folder + "/key.pem\n  ca: " + folder +
         "/ca.pem\n  crl: " + folder + "/crl.pem\n";
}

struct Outcome {
  int code;
  std::string output;
};

Outcome preceptor_run(const TempDir& dir, std::vector<std::string> words) {
  words.insert(words.begin(), PRECEPTOR_PROGRAM);
  Process process(words, dir / "run.log");
  const int code = process.wait();
  return {code, process.output()};
}

nlohmann::json json_file(const std::filesystem::path& path) {
  const auto text = read_text(path, 1 << 24);
  return text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
}

void make_ca(const TempDir& dir, const std::string& name, const std::vector<std::string>& nodes) {
  const auto ca = (dir / name).string();
  ASSERT_EQ(preceptor_run(dir, {"ca", "init", "--dir", ca, "--name", "test"}).code, 0);
  ASSERT_EQ(preceptor_run(dir, {"ca", "issue", "--dir", ca, "coordinator", "--role", "coordinator", "--host", "localhost"}).code, 0);
  for (const auto& node : nodes) ASSERT_EQ(preceptor_run(dir, {"ca", "issue", "--dir", ca, node}).code, 0);
}

Process start_node(const TempDir& dir, const std::string& ca, const std::string& site, const std::string& port, const std::string& more = "") {
  auto config = std::string(kJob).substr(0, std::string(kJob).find("teacher:"));
  config += "site: " + site + "\nstate: " + (dir / ("state-" + ca + site)).string() + "\n" + tls(dir / ca, site, "localhost:" + port) + more;
  EXPECT_TRUE(write_file(dir / (ca + site + ".yaml"), config));
  return Process({PRECEPTOR_PROGRAM, "node", "run", "--config", (dir / (ca + site + ".yaml")).string()}, dir / (ca + site + ".log"));
}

/// Three nodes and a coordinator, as processes, and a simulation give the same model. limits: of the sites, as YAML.
void expect_the_model_of_the_simulation(const TempDir& dir, const std::string& job, const std::string& limits = "{}") {
  make_ca(dir, "ca", {"hospital-1", "hospital-2", "hospital-3"});
  make_ca(dir, "foreign", {"hospital-1"});
  ASSERT_TRUE(write_file(dir / "sim.yaml", job + "sim: {limits: " + limits + "}\n"));
  ASSERT_TRUE(write_file(dir / "coordinator.yaml", job + tls(dir / "ca", "coordinator", "127.0.0.1:0")));

  Process coordinator({PRECEPTOR_PROGRAM, "coordinator", "serve", "--config", (dir / "coordinator.yaml").string(), "--out", (dir / "net").string()},
                      dir / "coordinator.log");
  auto port = coordinator.wait_for("(port ");
  ASSERT_FALSE(port.empty()) << coordinator.output();
  port.pop_back();  // ")"

  auto stranger = start_node(dir, "foreign", "hospital-1", port);
  const auto refusal = coordinator.wait_for("foreign CA");
  EXPECT_NE(coordinator.output().find("foreign CA"), std::string::npos) << coordinator.output() << stranger.output();

  std::vector<Process> nodes;
  for (const auto* site : {"hospital-1", "hospital-2", "hospital-3"}) nodes.push_back(start_node(dir, "ca", site, port, "limits: " + limits + "\n"));
  for (auto& node : nodes) EXPECT_EQ(node.wait(), 0) << node.output() << coordinator.output();
  EXPECT_EQ(coordinator.wait(), 0) << coordinator.output();

  ASSERT_EQ(preceptor_run(dir, {"sim", "run", (dir / "sim.yaml").string(), "--out", (dir / "sim").string()}).code, 0);
  const auto net = json_file(dir / "net" / "summary.json"), sim = json_file(dir / "sim" / "summary.json");
  ASSERT_TRUE(net.contains("model_hash"));
  EXPECT_EQ(net["model_hash"], sim["model_hash"]);
  EXPECT_EQ(net["sites"], sim["sites"]);
  EXPECT_GT(net["bytes_up"].get<double>(), sim["bytes_up"].get<double>());  // TLS records are counted too
}

TEST(Network, ThreeNodesAndACoordinatorGiveTheModelOfTheSimulation) {
  TempDir dir;
  expect_the_model_of_the_simulation(dir, kJob);
  const auto net = json_file(dir / "net" / "summary.json");
  const auto verdict = json_file(dir / "state-cahospital-2" / "verdict.json");
  EXPECT_EQ(verdict["verdict"], net["sites"][1]["verdict"]);
  for (const auto* name : {"local", "global", "personalised"})
    EXPECT_TRUE(std::filesystem::exists(dir / "state-cahospital-2" / (std::string(name) + ".safetensors"))) << name;

  const auto model = (dir / "net" / "model.safetensors").string();
  const auto report = preceptor_run(dir, {"report", (dir / "net").string()});
  EXPECT_EQ(report.code, 0) << report.output;
  EXPECT_TRUE(std::filesystem::exists(dir / "net" / "report.html"));
}

TEST(Network, TheSecureProfileGivesTheModelOfItsSimulation) {
  TempDir dir;
  expect_the_model_of_the_simulation(dir, std::string(kJob) + "update: {profile: secure, ring: {bits: 10, clip: 2, weight_cap: 100}}\n");
  const auto first = *read_text(dir / "net" / "rounds.jsonl", 1 << 20);
  EXPECT_NE(first.find(R"("pooled_auc":)"), std::string::npos) << first;
}

TEST(Network, MaskedUpdatesGiveTheModelOfTheUnmaskedSimulation) {
  TempDir dir;
  const auto unmasked = std::string(kJob) + "update: {profile: secure, ring: {bits: 10, clip: 2, weight_cap: 100}}\n";
  expect_the_model_of_the_simulation(dir, unmasked + "privacy: {secure_aggregation: {mode: masked, k_min: 3}}\n",
                                     "{secure_aggregation: {required: true, k_min: 3}}");
  ASSERT_TRUE(write_file(dir / "unmasked.yaml", unmasked));
  ASSERT_EQ(preceptor_run(dir, {"sim", "run", (dir / "unmasked.yaml").string(), "--out", (dir / "unmasked").string()}).code, 0);
  EXPECT_EQ(json_file(dir / "net" / "summary.json")["model_hash"], json_file(dir / "unmasked" / "summary.json")["model_hash"]);
  const auto kept = dir / "state-cahospital-1" / "secure_aggregation" / "session";
  ASSERT_TRUE(std::filesystem::exists(kept));
  EXPECT_EQ(std::filesystem::status(kept).permissions() & std::filesystem::perms::all, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST(Network, ANodeThatIsKilledIsNamedInTheRecordAndTheRunGoesOn) {
  TempDir dir;
  make_ca(dir, "ca", {"hospital-1", "hospital-2", "hospital-3"});
  auto job = std::string(kJob);
  job.replace(job.find("quorum: 3"), 9, "quorum: 2, deadline: 15, report_deadline: 15");
  job.replace(job.find("rounds: 2"), 9, "rounds: 3");
  ASSERT_TRUE(write_file(dir / "coordinator.yaml", job + tls(dir / "ca", "coordinator", "127.0.0.1:0")));
  Process coordinator({PRECEPTOR_PROGRAM, "coordinator", "serve", "--config", (dir / "coordinator.yaml").string(), "--out", (dir / "net").string()},
                      dir / "coordinator.log");
  auto port = coordinator.wait_for("(port ");
  ASSERT_FALSE(port.empty()) << coordinator.output();
  port.pop_back();
  std::vector<Process> nodes;
  for (const auto* site : {"hospital-1", "hospital-2", "hospital-3"}) nodes.push_back(start_node(dir, "ca", site, port));
  nodes[0].wait_for("round 1: ");
  nodes[0].kill(SIGKILL);
  EXPECT_EQ(coordinator.wait(), 0) << coordinator.output();
  const auto summary = json_file(dir / "net" / "summary.json");
  EXPECT_EQ(summary["sites"].size(), 2u);
  const auto rounds = *read_text(dir / "net" / "rounds.jsonl", 1 << 20);
  EXPECT_NE(rounds.find(R"("missing":{"hospital-1":"disconnected)"), std::string::npos) << rounds;
  EXPECT_NE(rounds.find(R"("outcome":"partial")"), std::string::npos) << rounds;
}

TEST(BadInput, AWrongKeyNamesFileLineAndTheNearestKnownOne) {
  TempDir dir;
  ASSERT_TRUE(write_file(dir / "c.yaml", "seed: 1\ntraining:\n  epohcs: 3\n"));
  const auto done = preceptor_run(dir, {"sim", "run", (dir / "c.yaml").string()});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.output.find("c.yaml:3: training.epohcs: unknown key; did you mean 'epochs'?"), std::string::npos) << done.output;
}

TEST(BadInput, ATruncatedNpzIsOneClearLine) {
  TempDir dir;
  ASSERT_TRUE(write_file(dir / "x.npz", std::string("PK\x03\x04 and no more")));
  const auto done = preceptor_run(dir, {"sim", "run", "configs/sim/pneumonia.yaml", "--set", "data.path=" + (dir / "x.npz").string(), "--out", (dir / "o").string()});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.output.find("x.npz"), std::string::npos) << done.output;
}

TEST(BadInput, AModelFileWithALyingHeaderIsOneClearLine) {
  TempDir dir;
  ASSERT_TRUE(write_file(dir / "m.safetensors", std::string("\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10)));
  const auto done = preceptor_run(dir, {"evaluate", (dir / "m.safetensors").string(), "data.npz"});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.output.find("its header claims"), std::string::npos) << done.output;
}

TEST(BadInput, ACertificateOfTheWrongPlaceIsToldBeforeTraining) {
  TempDir dir;
  ASSERT_TRUE(write_file(dir / "coordinator.yaml", kJob + tls(dir / "none", "coordinator", "127.0.0.1:0")));
  const auto done = preceptor_run(dir, {"coordinator", "serve", "--config", (dir / "coordinator.yaml").string(), "--out", (dir / "o").string()});
  EXPECT_NE(done.code, 0);
  EXPECT_NE(done.output.find("none"), std::string::npos) << done.output;
}

TEST(Evaluate, MeasuresAModelOnRealImages) {
  const auto npz = test::shared_data("pneumoniamnist/pneumoniamnist.npz");
  if (npz.empty()) GTEST_SKIP() << "needs ../shared/data/pneumoniamnist";
  TempDir dir;
  ASSERT_TRUE(write_file(dir / "c.yaml", std::string(kJob)));
  ASSERT_EQ(preceptor_run(dir, {"distill", (dir / "c.yaml").string(), "--out", (dir / "s").string()}).code, 0);
  const auto done = preceptor_run(dir, {"evaluate", (dir / "s" / "student.safetensors").string(), npz.string(), "--json"});
  EXPECT_EQ(done.code, 0) << done.output;
  const auto json = nlohmann::json::parse(done.output, nullptr, false);
  EXPECT_EQ(json["images"], 624);
  EXPECT_TRUE(json["auc"].is_number());
}

}  // namespace
