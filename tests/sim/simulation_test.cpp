#include "sim/simulation.h"

#include <gtest/gtest.h>

#include "common/file.h"
#include "tests/support/temp_dir.h"

namespace preceptor::sim {
namespace {

using Json = nlohmann::ordered_json;

/// Three procedural hospitals and two short rounds: a few seconds.
constexpr const char* kConfig = R"(
seed: 3
data:
  kind: phantom
  phantom: {images: 240, sites: 3}
  partition: {method: site, consortium: 0.2}
teacher: {training: {epochs: 0}}
student:
  model: {name: shufflenet_v2, width: 0.5, stem: small}
  training: {epochs: 1}
federation: {rounds: 2, quorum: 3}
training: {epochs: 1, learning_rate: 0.01, augment: {shift: 1, flip: true}}
update:
  weights: [{codec: topk, fraction: 0.2}, {codec: quantize, bits: 8}, {codec: zstd}]
personalise_epochs: 1
)";

struct Run {
  std::unique_ptr<test::TempDir> folder = std::make_unique<test::TempDir>();
  Json summary;
  std::filesystem::path file(const std::string& name) const { return *folder / name; }
};

Run run(const std::vector<std::string>& overrides) {
  Run done;
  const auto yaml = parse_yaml(kConfig, "test", overrides);
  EXPECT_TRUE(yaml) << yaml.error().message;
  auto options = read_options<SimulationOptions>(*yaml, "test");
  EXPECT_TRUE(options) << options.error().message;
  auto summary = simulate(*options, write_options(*options), done.folder->path());
  EXPECT_TRUE(summary) << summary.error().message;
  if (summary) done.summary = std::move(*summary);
  return done;
}

TEST(Simulation, TheModelDoesNotDependOnTheNumberOfThreads) {
  const auto one = run({"sim.threads=1"}), two = run({"sim.threads=2"});
  EXPECT_EQ(one.summary["model_hash"], two.summary["model_hash"]);
  EXPECT_EQ(one.summary["sites"], two.summary["sites"]);
  EXPECT_EQ(one.summary["bytes_up"], two.summary["bytes_up"]);
  const auto other = run({"seed=4"});
  EXPECT_NE(one.summary["model_hash"], other.summary["model_hash"]);
}

TEST(Simulation, TheRunDirectoryHoldsWhatIsPromised) {
  const auto done = run({});
  for (const auto* key : {"config_hash", "seed", "rounds", "test", "teacher", "student_parameters", "bytes_up", "bytes_down",
                          "bytes_up_fp32", "wall_seconds", "peak_rss_bytes", "model_hash", "sites"})
    EXPECT_TRUE(done.summary.contains(key)) << key;
  EXPECT_EQ(done.summary["rounds"], 2);
  EXPECT_TRUE(done.summary["test"]["auc"].is_number());
  ASSERT_EQ(done.summary["sites"].size(), 3u);
  for (const auto& site : done.summary["sites"])
    for (const auto* key : {"name", "train", "local_auc", "global_auc", "personalised_auc", "verdict"}) EXPECT_TRUE(site.contains(key)) << key;
  EXPECT_EQ(hex(sha256(*read_text(done.file("config.yaml"), 1 << 20))), done.summary["config_hash"]);
  const auto lines = *read_text(done.file("rounds.jsonl"), 1 << 20);
  EXPECT_EQ(std::ranges::count(lines, '\n'), 2);
  const auto first = Json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_EQ(first["outcome"], "complete");
  EXPECT_EQ(first["accepted"].size(), 3u);
  const auto model = models::load_model(done.file("model.safetensors"));
  ASSERT_TRUE(model) << model.error().message;
  EXPECT_EQ(model_hash(model->model.store()), done.summary["model_hash"]);
}

TEST(Simulation, TheSecureProfileLearnsWithoutWeightsOrLossesInTheClear) {
  const std::vector<std::string> secure{"update.profile=secure", "update.ring.bits=8", "update.ring.clip=2", "update.ring.weight_cap=100"};
  auto one = secure, two = secure;
  one.push_back("sim.threads=1");
  two.push_back("sim.threads=2");
  const auto a = run(one), b = run(two);
  EXPECT_EQ(a.summary["model_hash"], b.summary["model_hash"]);
  EXPECT_EQ(a.summary["rounds"], 2);
  EXPECT_EQ(a.summary["void_rounds"], 0);
  // 8 bits at three sites: 381 < 2^9, so 10 bits a word instead of 32.
  EXPECT_LT(a.summary["bytes_up"].get<double>(), 0.36 * a.summary["bytes_up_fp32"].get<double>());
  const auto first = Json::parse(read_text(a.file("rounds.jsonl"), 1 << 20)->substr(0, read_text(a.file("rounds.jsonl"), 1 << 20)->find('\n')));
  EXPECT_GT(first["train_loss"].get<double>(), 0);
  EXPECT_TRUE(first["pooled_auc"].is_number());
  EXPECT_NE(read_text(a.file("config.yaml"), 1 << 20)->find("profile: secure"), std::string::npos);
}

TEST(Simulation, AMaskedRunGivesTheModelOfTheUnmaskedOne) {
  const std::vector<std::string> secure{"update.profile=secure", "update.ring.bits=8", "update.ring.clip=2", "update.ring.weight_cap=100"};
  auto masked = secure;
  for (const auto* more : {"privacy.secure_aggregation.mode=masked", "privacy.secure_aggregation.k_min=3", "sim.limits.secure_aggregation.k_min=3",
                           "sim.limits.secure_aggregation.required=true"})
    masked.push_back(more);
  const auto a = run(secure), b = run(masked);
  EXPECT_EQ(a.summary["model_hash"], b.summary["model_hash"]);
  EXPECT_EQ(b.summary["void_rounds"], 0);
  EXPECT_EQ(b.summary["sites"][0]["verdict"], "kept at the site");
  // Two of three models are made from published sums of 10 bits a word.
  EXPECT_LT(b.summary["bytes_down"].get<double>(), 0.7 * a.summary["bytes_down"].get<double>());
  auto published = secure;
  published.push_back("federation.downlink.mode=sum");
  EXPECT_EQ(run(published).summary["model_hash"], a.summary["model_hash"]) << "also without masks, by delta or by sum";
  const auto rounds = [](const auto& done) { return *read_text(done.file("rounds.jsonl"), 1 << 20); };
  const auto first = [](const std::string& lines) { return Json::parse(lines.substr(0, lines.find('\n'))); };
  EXPECT_EQ(first(rounds(a))["train_loss"], first(rounds(b))["train_loss"]) << "the totals are summed under masks, too";
  EXPECT_EQ(first(rounds(a))["pooled_auc"], first(rounds(b))["pooled_auc"]);
}

TEST(Simulation, SitesRefuseAPlanWithoutMasksOrBelowTheirFloor) {
  const auto reason = [](std::vector<std::string> overrides) {
    overrides.insert(overrides.end(), {"update.profile=secure", "federation.join_deadline=1"});
    const auto yaml = parse_yaml(kConfig, "test", overrides);
    auto options = *read_options<SimulationOptions>(*yaml, "test");
    test::TempDir dir;
    const auto summary = simulate(options, write_options(options), dir.path());
    return summary ? std::string() : summary.error().message;
  };
  EXPECT_NE(reason({"sim.limits.secure_aggregation.required=true"}), "");
  EXPECT_NE(reason({"privacy.secure_aggregation.mode=masked", "privacy.secure_aggregation.k_min=3"}), "") << "the sites' floor is 5";
  const std::vector<std::string> masked{"privacy.secure_aggregation.mode=masked", "privacy.secure_aggregation.k_min=3",
                                        "sim.limits.secure_aggregation.k_min=3", "federation.quorum=3", "federation.rounds=1"};
  auto whole = masked;
  whole.push_back("federation.downlink.mode=full");
  EXPECT_EQ(reason(masked), "");
  EXPECT_NE(reason(whole), "") << "no site could make the model itself";
  whole.push_back("sim.limits.secure_aggregation.recompute=false");
  EXPECT_EQ(reason(whole), "");
  auto drawn = masked;
  drawn.insert(drawn.end(), {"federation.cohort=3", "federation.downlink.mode=sum"});
  EXPECT_NE(reason(drawn).find("set federation.cohort: 0"), std::string::npos);
  EXPECT_NE(reason({"privacy.secure_aggregation.mode=masked"}).find("below privacy.secure_aggregation.k_min = 5"), std::string::npos);
}

TEST(Simulation, TheSecureProfilesModelIsNearTheOneOfFloats) {
  const std::vector<std::string> floats{"update.weights=[]", "update.statistics=[]", "update.error_feedback=false", "training.epochs=1", "federation.rounds=1"};
  auto secure = floats;
  for (const auto* more : {"update.profile=secure", "update.ring.bits=20", "update.ring.clip=20", "update.ring.weight_cap=100"}) secure.push_back(more);
  const auto a = run(floats), b = run(secure);
  const auto load = [](const auto& done, const char* file) { return models::load_model(done.file(file))->model.store(); };
  const auto start = load(a, "student.safetensors"), plain = load(a, "model.safetensors"), ring = load(b, "model.safetensors");
  double moved = 0, apart = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    moved += std::pow(double(plain[i]) - start[i], 2);
    apart += std::pow(double(ring[i]) - plain[i], 2);
  }
  EXPECT_GT(moved, 0);
  EXPECT_LT(apart, 1e-6 * moved);
}

Json first_round(const Run& done) {
  const auto lines = *read_text(done.file("rounds.jsonl"), 1 << 20);
  return Json::parse(lines.substr(0, lines.find('\n')));
}

TEST(Simulation, EachStageOfTheCodecSaysWhatItLeftOfTheUpdates) {
  const auto stages = [](const Json& round) {
    std::vector<std::string> names;
    for (const auto& stage : round["fidelity"]) names.push_back(stage["stage"]);
    return names;
  };
  const auto custom = first_round(run({"federation.rounds=1"}));
  EXPECT_EQ(stages(custom), (std::vector<std::string>{"topk", "quantize", "zstd"}));
  EXPECT_LT(custom["fidelity"][0]["cosine"].get<double>(), 0.999);
  EXPECT_GT(custom["fidelity"][0]["cosine"].get<double>(), 0.3);
  EXPECT_EQ(custom["fidelity"][2], (Json{{"stage", "zstd"}, {"cosine", custom["fidelity"][1]["cosine"]}, {"norm_ratio", custom["fidelity"][1]["norm_ratio"]}}));
  const auto secure = first_round(run({"federation.rounds=1", "update.profile=secure", "update.ring.bits=12", "update.ring.clip=0.5", "update.ring.weight_cap=100"}));
  EXPECT_EQ(stages(secure), (std::vector<std::string>{"clip", "round"}));
  EXPECT_GT(secure["fidelity"][0]["cosine"].get<double>(), 0.9999) << "to clip is to shorten";
}

TEST(Simulation, ModelsAsPatchesSaveBytesOnTheWayDown) {
  const std::vector<std::string> four{"federation.rounds=4"};
  auto delta = four;
  delta.push_back("federation.downlink.mode=delta");
  const auto whole = run(four), patches = run(delta), again = run(delta);
  // One whole model and four patches of a quarter instead of five models.
  EXPECT_LT(patches.summary["bytes_down"].get<double>(), 0.5 * whole.summary["bytes_down"].get<double>());
  EXPECT_EQ(patches.summary["model_hash"], again.summary["model_hash"]);
  EXPECT_NE(patches.summary["model_hash"], whole.summary["model_hash"]);
  for (const auto& site : patches.summary["sites"]) EXPECT_TRUE(site["global_accuracy"].is_number());
}

TEST(Simulation, ARingThatTheCohortCouldOverflowIsRefusedBeforeAnythingTrains) {
  const auto yaml = parse_yaml(kConfig, "test", {"update.profile=secure", "update.ring.bits=8", "update.ring.ring_bits=9"});
  auto options = *read_options<SimulationOptions>(*yaml, "test");
  test::TempDir dir;
  const auto summary = simulate(options, write_options(options), dir.path());
  ASSERT_FALSE(summary);
  EXPECT_NE(summary.error().message.find("3 nodes of ±127"), std::string::npos) << summary.error().message;
  EXPECT_FALSE(std::filesystem::exists(dir / "student.safetensors"));
}

TEST(Simulation, TheUplinkIsSmallerThanFp32) {
  const auto done = run({});
  EXPECT_GT(done.summary["bytes_up_fp32"].get<double>(), 8 * done.summary["bytes_up"].get<double>());
}

TEST(Simulation, ATeacherTravelsOnlyWhereTheSitesAllowIt) {
  const std::vector<std::string> teacher{"teacher.training.epochs=1", "teacher.model={name: shufflenet_v2, width: 0.5, stem: small}",
                                         "distillation.from=teacher"};
  auto willing = teacher;
  willing.push_back("sim.limits.teacher_mib=64");
  const auto with = run(willing), without = run(teacher), global = run({"distillation.from=global"});
  EXPECT_GT(with.summary["bytes_down"].get<double>(), without.summary["bytes_down"].get<double>() + 3 * 1e6);
  EXPECT_NE(with.summary["model_hash"], without.summary["model_hash"]);
  EXPECT_NE(global.summary["model_hash"], run({}).summary["model_hash"]);
}

TEST(Simulation, APlanBeyondTheSitesLimitsIsRefusedAndTheJobSaysSo) {
  const auto yaml = parse_yaml(kConfig, "test", {"sim.limits.max_epochs=1", "training.epochs=2"});
  auto options = *read_options<SimulationOptions>(*yaml, "test");
  test::TempDir dir;
  const auto summary = simulate(options, write_options(options), dir.path());
  ASSERT_FALSE(summary);
  EXPECT_NE(summary.error().message.find("given up"), std::string::npos) << summary.error().message;
}

TEST(Simulation, AStudentFileOfAnotherNetworkIsRefused) {
  const auto first = run({});
  const auto yaml = parse_yaml(kConfig, "test", {"student.path=" + first.file("model.safetensors").string(), "student.model.width=1"});
  auto options = *read_options<SimulationOptions>(*yaml, "test");
  test::TempDir dir;
  const auto summary = simulate(options, write_options(options), dir.path());
  ASSERT_FALSE(summary);
  EXPECT_EQ(summary.error().code, Code::kInvalid);
}

TEST(Simulation, AStudentWithLoraFederatesItsAdditionsHeadAndStatisticsAlone) {
  const std::string lossless = "update.weights=[{codec: zstd}]";  // top-k would leave the layers that moved least where they were
  const auto plain = run({lossless}), done = run({lossless, "student.lora.rank=4", "sim.central=true"});
  ASSERT_TRUE(done.summary.contains("bytes_up"));
  EXPECT_LT(done.summary["bytes_up"].get<double>(), plain.summary["bytes_up"].get<double>());
  const auto begun = models::load_model(done.file("student.safetensors")), ended = models::load_model(done.file("model.safetensors"));
  ASSERT_TRUE(begun && ended);
  const auto before = begun->model.store(), after = ended->model.store();
  std::size_t frozen = 0;
  for (const auto& piece : ended->model.space().pieces()) {
    const auto part = [&](const std::vector<float>& values) { return std::span(values).subspan(piece.offset, piece.size); };
    if (is_frozen(piece.role)) {
      frozen += piece.size;
      EXPECT_TRUE(std::ranges::equal(part(before), part(after))) << piece.name;
    } else if (piece.name.ends_with("lora_up.weight")) {
      EXPECT_FALSE(std::ranges::equal(part(before), part(after))) << piece.name;
    }
  }
  EXPECT_GT(frozen, ended->model.space().size() / 2);
  // A later run goes on from the file: student.model names the network, the file says what became of it.
  const auto again = run({"student.path=" + done.file("model.safetensors").string(), "student.training.epochs=0"});
  const auto last = models::load_model(again.file("model.safetensors"));
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(last->model.space().architecture_hash(), ended->model.space().architecture_hash());
}

}  // namespace
}  // namespace preceptor::sim
