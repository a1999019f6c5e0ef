#include "common/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file.h"
#include "tests/support/temp_dir.h"

namespace preceptor {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

struct Training {
  int epochs = 1;
  double rate = 0.1;
  template <class V>
  void visit(V& v) {
    v("epochs", epochs, Range{1, 100});
    v("rate", rate, Range{0, 1});
  }
};

struct Job {
  int rounds = 5;
  std::uint8_t small = 7;
  std::uint64_t seed = 1;
  bool secure = false;
  std::string name = "job";
  std::string mode = "mean";
  std::chrono::seconds deadline{120};
  Training training;
  std::vector<double> weights{1.0};
  std::vector<Training> phases;
  std::vector<std::map<std::string, std::string>> pipeline;
  std::map<std::string, std::string> tags;
  template <class V>
  void visit(V& v) {
    v("rounds", rounds, Range{1, 1000});
    v("small", small);
    v("seed", seed);
    v("secure", secure);
    v("name", name);
    v("mode", mode, OneOf{"mean", "median"});
    v("deadline", deadline, Range{1, 3600});
    v("training", training);
    v("weights", weights, Range{0, 10});
    v("phases", phases);
    v("pipeline", pipeline);
    v("tags", tags);
  }
};

Result<Job> read(const std::string& text, const std::vector<std::string>& sets = {}) {
  return read_options<Job>(TRY(parse_yaml(text, "run.yaml", sets)), "run.yaml");
}

std::string problem(const std::string& text, const std::vector<std::string>& sets = {}) {
  const auto job = read(text, sets);
  if (job) return "no problem";
  EXPECT_EQ(job.error().code, Code::kInvalid);
  return job.error().message;
}

TEST(Options, EveryKindOfValueIsRead) {
  const auto job = read(R"(
rounds: 12
small: 255
seed: 18446744073709551615
secure: true
name: "yes: no"
mode: median
deadline: 30
training: {epochs: 3, rate: 0.5}
weights: [1, 2.5, 1e-3]
phases:
  - epochs: 2
  - {epochs: 4, rate: 0.25}
pipeline:
  - {codec: topk, fraction: 0.1}
  - codec: zstd
tags: {site: a, kind: "3"}
)");
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(job->rounds, 12);
  EXPECT_EQ(job->small, 255);
  EXPECT_EQ(job->seed, 18446744073709551615u);
  EXPECT_TRUE(job->secure);
  EXPECT_EQ(job->name, "yes: no");
  EXPECT_EQ(job->mode, "median");
  EXPECT_EQ(job->deadline, std::chrono::seconds(30));
  EXPECT_EQ(job->training.epochs, 3);
  EXPECT_EQ(job->training.rate, 0.5);
  EXPECT_THAT(job->weights, ElementsAre(1, 2.5, 1e-3));
  ASSERT_EQ(job->phases.size(), 2u);
  EXPECT_EQ(job->phases[0].rate, 0.1) << "a missing key keeps the default";
  EXPECT_EQ(job->phases[1].rate, 0.25);
  ASSERT_EQ(job->pipeline.size(), 2u);
  EXPECT_EQ(job->pipeline[0].at("fraction"), "0.1");
  EXPECT_EQ(job->tags.at("kind"), "3");
}

TEST(Options, AnEmptyFileKeepsEveryDefault) {
  for (const auto* text : {"", "# nothing\n", "{}", "training:\n"}) {
    const auto job = read(text);
    ASSERT_TRUE(job) << text << ": " << job.error().message;
    EXPECT_EQ(job->rounds, 5);
    EXPECT_EQ(job->training.epochs, 1);
  }
}

TEST(Options, AnUnknownKeyIsAnsweredWithItsLineAndTheNearestKnownKey) {
  EXPECT_EQ(problem("rounds: 2\nround: 3\n"),
            "run.yaml:2: round: unknown key; did you mean 'rounds'?");
  EXPECT_EQ(problem("rounds: 2\n\ntraining:\n  epochs: 2\n  rte: 1\n"),
            "run.yaml:5: training.rte: unknown key; did you mean 'rate'?");
  EXPECT_EQ(problem("phases:\n- epochs: 1\n- epoch: 1\n"),
            "run.yaml:3: phases[1].epoch: unknown key; did you mean 'epochs'?");
  EXPECT_THAT(problem("training: {zzzzzzzzzzzz: 1}"),
              HasSubstr("unknown key; known here: epochs, rate"));
  EXPECT_THAT(problem("[1, 2]: 3"), HasSubstr("run.yaml:1: ?: unknown key"));
}

TEST(Options, AllProblemsAreReportedAtOnceEachWithItsOwnLine) {
  EXPECT_EQ(problem("rounds: many\n"
                    "deadline: 0\n"
                    "training:\n"
                    "  epochs: 101\n"
                    "  rate: x\n"
                    "mode: mode\n"
                    "weights: [1, 11]\n"
                    "rond: 1\n"),
            "run.yaml:1: rounds: wants a whole number, not 'many'\n"
            "run.yaml:6: mode: 'mode' is not one of: mean, median\n"
            "run.yaml:2: deadline: 0 is outside 1 … 3600\n"
            "run.yaml:4: training.epochs: 101 is outside 1 … 100\n"
            "run.yaml:5: training.rate: wants a number, not 'x'\n"
            "run.yaml:7: weights[1]: 11 is outside 0 … 10\n"
            "run.yaml:8: rond: unknown key; did you mean 'rounds'?");
}

TEST(Options, AValueOfTheWrongKindIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"rounds: 2.5", "rounds: wants a whole number, not '2.5'"},
      {"rounds: [2]", "rounds: wants a whole number"},
      {"rounds:", "rounds: wants a whole number"},
      {"rounds: 1001", "rounds: 1001 is outside 1 … 1000"},
      {"small: 256", "small: 256 is outside 0 … 255"},
      {"small: -1", "small: -1 is outside 0 … 255"},
      {"seed: -1", "seed: wants a whole number, not '-1'"},
      {"seed: 18446744073709551616", "seed: wants a whole number"},
      {"secure: perhaps", "secure: wants true or false, not 'perhaps'"},
      {"name: {a: b}", "name: wants a text"},
      {"mode: [mean]", "mode: wants a text"},
      {"training: 3", "training: wants a group of keys"},
      {"training: [epochs]", "training: wants a group of keys"},
      {"training: {rate: .nan}", "training.rate: wants a number, not '.nan'"},
      {"training: {rate: .inf}", "training.rate: wants a number, not '.inf'"},
      {"weights: 1", "weights: wants a list"},
      {"weights: [1, [2]]", "weights[1]: wants a number"},
      {"pipeline: [topk]", "pipeline[0]: wants a group of keys"},
      {"pipeline: [{codec: [topk]}]", "pipeline[0].codec: wants a plain value"},
      {"tags: {a: 1, a: 2}", "tags.a: stands here twice"},
  };
  for (const auto& [text, expected] : cases)
    EXPECT_EQ(
        problem(text).substr(0, std::string("run.yaml:1: ").size() + std::string(expected).size()),
        std::string("run.yaml:1: ") + expected)
        << text;
}

TEST(Options, AKeyThatStandsTwiceIsRefusedAndNotHalfRead) {
  EXPECT_EQ(problem("rounds: 1\nname: a\nrounds: 2\n"), "run.yaml:3: rounds: stands here twice");
  EXPECT_EQ(problem("training:\n  rate: 1\n  rate: 0\n"),
            "run.yaml:3: training.rate: stands here twice");
}

TEST(Options, BrokenYamlIsAnErrorWithItsLine) {
  EXPECT_THAT(problem("rounds: 1\nname: [a, b\n"), HasSubstr("run.yaml:"));
  EXPECT_THAT(problem("rounds: 1\n  name: 2\n"), HasSubstr("run.yaml:2: "));
  EXPECT_EQ(problem("just a text"), "run.yaml: wants keys and values at the top");
  EXPECT_NE(problem(std::string(100000, '[')), "no problem")
      << "deep nesting must not exhaust the stack";
}

TEST(Options, SetOverridesAndAddsNestedKeys) {
  const auto job = read("rounds: 2\ntraining: {epochs: 3, rate: 0.5}\n",
                        {"rounds=4", "training.rate=0.75", "weights=[3, 4]", "tags={a: b}",
                         "mode=median", "name=a=b", "rounds=6", "tags.c=d"});
  ASSERT_TRUE(job) << job.error().message;
  EXPECT_EQ(job->rounds, 6) << "the last one counts";
  EXPECT_EQ(job->training.epochs, 3) << "its neighbours stay";
  EXPECT_EQ(job->training.rate, 0.75);
  EXPECT_THAT(job->weights, ElementsAre(3, 4));
  EXPECT_EQ(job->name, "a=b");
  EXPECT_EQ(job->tags, (std::map<std::string, std::string>{{"a", "b"}, {"c", "d"}}));
  const auto fresh = read("", {"training.epochs=9"});
  ASSERT_TRUE(fresh) << fresh.error().message;
  EXPECT_EQ(fresh->training.epochs, 9) << "a group that the file does not have is made";
  const auto empty = read("training:\n", {"training.epochs=9"});
  ASSERT_TRUE(empty) << empty.error().message;
  EXPECT_EQ(empty->training.epochs, 9);
}

TEST(Options, ABadSetIsRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"rounds", "--set rounds: wants key=value, as in --set training.epochs=2"},
      {"=3", "--set =3: wants key=value, as in --set training.epochs=2"},
      {".a=3", "--set .a=3: empty key"},
      {"a..b=3", "--set a..b=3: empty key"},
      {"a.=3", "--set a.=3: empty key"},
      {"rounds.x=3", "--set rounds.x=3: 'rounds' is not a group of keys"},
  };
  for (const auto& [set, expected] : cases) EXPECT_EQ(problem("rounds: 2\n", {set}), expected);
  EXPECT_THAT(problem("rounds: 2\n", {"rounds=[1"}),
              AllOf(HasSubstr("--set rounds=[1: "), Not(HasSubstr("run.yaml"))));
}

TEST(Options, AProblemThatSetCausedNamesTheSetAndNoLine) {
  const std::string file = "\n\n\nrounds: 2\ntraining: {epochs: 3}\n";
  EXPECT_EQ(problem(file, {"rounds=many"}),
            "--set rounds=many: rounds: wants a whole number, not 'many'");
  EXPECT_EQ(problem(file, {"training.rte=1"}),
            "--set training.rte=1: training.rte: unknown key; did you mean 'rate'?");
  EXPECT_EQ(problem(file, {"trainig.epochs=1"}),
            "--set trainig.epochs=1: trainig: unknown key; did you mean 'training'?");
  EXPECT_EQ(problem(file, {"training={epochs: 1000}"}),
            "--set training={epochs: 1000}: training.epochs: 1000 is outside 1 … 100");
  EXPECT_EQ(problem("training: {epochs: 1000}\nrounds: 1\n", {"training.rate=2"}),
            "run.yaml:1: training.epochs: 1000 is outside 1 … 100\n"
            "--set training.rate=2: training.rate: 2 is outside 0 … 1");
}

TEST(Options, WhatIsWrittenReadsBackAsTheSame) {
  Job job;
  job.rounds = 77;
  job.secure = true;
  job.small = 65;
  job.seed = std::uint64_t{1} << 63;
  job.deadline = std::chrono::seconds(61);
  job.training = {.epochs = 8, .rate = 0.1 + 0.2};
  job.weights = {1.0 / 3, 1e-9, 5};
  job.phases = {{.epochs = 2, .rate = 1}, {}};
  job.pipeline = {{{"codec", "topk"}, {"fraction", "0.1"}}, {}};
  for (const auto* name : {"", "null", "~", "true", "12", "a: b", "# x", " lead", "two\nlines", "é",
                           "[", "!x", "'", "\""}) {
    job.name = name;
    job.tags = {{"key", name}};
    const auto text = write_options(job);
    auto again = read(text);
    ASSERT_TRUE(again) << text << again.error().message;
    EXPECT_EQ(again->name, name);
    EXPECT_EQ(again->small, job.small);
    EXPECT_EQ(again->seed, job.seed);
    EXPECT_EQ(again->tags, job.tags);
    EXPECT_EQ(again->weights, job.weights);
    EXPECT_EQ(again->training.rate, job.training.rate);
    EXPECT_EQ(again->deadline, job.deadline);
    EXPECT_EQ(again->pipeline, job.pipeline);
    EXPECT_EQ(write_options(*again), text) << "canonical: one text for one value";
  }
}

TEST(Options, EveryKeyIsWrittenInTheOrderOfVisit) {
  Training training;
  EXPECT_EQ(write_options(training), "epochs: 1\nrate: 0.1\n");
}

TEST(Options, SettingsOfARegisteredThingNameItInsteadOfAFile) {
  const auto good = read_settings<Training>({{"rate", "0.5"}}, "sgd");
  ASSERT_TRUE(good);
  EXPECT_EQ(good->rate, 0.5);
  const auto bad = read_settings<Training>({{"epoch", "2"}, {"rate", "2"}}, "sgd");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message,
            "sgd: rate: 2 is outside 0 … 1\nsgd: epoch: unknown key; did you mean 'epochs'?");
}

TEST(Options, AFileIsLoadedAndItsNameStandsInProblems) {
  const test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "job.yaml", "rounds: 3\nfoo: 1\n"));
  const auto path = (dir / "job.yaml").string();
  const auto node = load_yaml(path, {"rounds=4"});
  ASSERT_TRUE(node);
  const auto job = read_options<Job>(*node, path);
  ASSERT_FALSE(job);
  EXPECT_THAT(job.error().message, HasSubstr(path + ":2: foo"));
  EXPECT_EQ(load_yaml(dir / "none.yaml").error().code, Code::kNotFound);
  ASSERT_TRUE(write_file(dir / "big.yaml", std::string((1 << 20) + 1, '#')));
  EXPECT_EQ(load_yaml(dir / "big.yaml").error().code, Code::kRefused);
}

TEST(Nearest, FindsTheSmallestEditDistanceOrNothing) {
  EXPECT_EQ(nearest("epocs", {"epochs", "rate"}), "epochs");
  EXPECT_EQ(nearest("learning_rate", {"epochs", "rate"}), "");
  EXPECT_EQ(nearest("x", {}), "");
}

}  // namespace
}  // namespace preceptor
