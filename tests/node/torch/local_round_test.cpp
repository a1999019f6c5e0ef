#include "node/local_round.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "node/verdict.h"
#include "tests/training/made.h"

namespace preceptor::node {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using training::test::made_model;
using training::test::phantoms;

transport::Blob blob_of(const std::vector<float>& values) {
  const auto bytes = std::as_bytes(std::span(values));
  return std::make_shared<const Bytes>(bytes.begin(), bytes.end());
}

data::Splits splits_of(const data::Dataset& all, std::size_t train, std::size_t validation) {
  std::vector<std::size_t> order = RandomStream(1, "splits").permutation(all.size());
  const auto index = std::span(order);
  return {all.subset(index.first(train)), all.subset(index.subspan(train, validation)),
          all.subset(index.subspan(train + validation))};
}

class LocalRoundTest : public testing::Test {
 protected:
  LocalRoundTest() {
    plan.rounds = 4;
    plan.student = {{"test-tiny", 0.5, "small"}, {2, 1, 28}};
    plan.training.optimizer = "adamw";
    plan.training.learning_rate = 0.01;
    plan.training.epochs = 2;
    plan.training.batch = 16;
    plan.training.augment.shift = 2;
    plan.update.weights = {{{"codec", "topk"}, {"fraction", "0.05"}}};
  }
  SiteState site_of(const std::string& name) const {
    SiteState site;
    site.name = name;
    site.data = &data;
    return site;
  }
  Train task(std::uint32_t round, std::uint64_t model_seed = 1) const {
    const auto model = made_model("test-tiny", 2, model_seed);
    return {round, blob_of(model.store()), model.space().architecture_hash()};
  }
  std::unique_ptr<Workbench> bench() const { return Workbench::create(plan).value(); }
  /// The update of a fresh site at a fresh bench.
  Bytes update(const std::string& name, const Train& work) const {
    auto site = site_of(name);
    auto trained = local_round(*bench(), site, work);
    EXPECT_EQ(trained.why, "");
    EXPECT_EQ(trained.round, work.round);
    EXPECT_GT(trained.train_loss, 0);
    return trained.update;
  }

  const data::Splits data = splits_of(phantoms(200), 64, 36);
  Plan plan;
};

TEST_F(LocalRoundTest, SameInputsGiveTheSameUpdateBytes) {
  const auto expected = update("amber", task(2));
  EXPECT_EQ(update("amber", task(2)), expected);
  EXPECT_NE(update("birch", task(2)), expected);
  EXPECT_NE(update("amber", task(3)), expected);
  EXPECT_NE(update("amber", task(2, 7)), expected);
  plan.seed = 2;
  EXPECT_NE(update("amber", task(2)), expected);
}

TEST_F(LocalRoundTest, WhatTheBenchDidBeforeDoesNotMatter) {
  const auto expected = update("amber", task(2));
  auto used = bench();
  auto other = site_of("birch"), amber = site_of("amber");
  local_round(*used, other, task(1, 9));
  EXPECT_EQ(local_round(*used, amber, task(2)).update, expected);
}

TEST_F(LocalRoundTest, TheUpdateIsWhatTrainingAddedToTheReceivedModel) {
  plan.update = {.weights = {}, .statistics = {}, .error_feedback = false};
  const auto work = task(2);
  const auto bytes = update("amber", work);
  auto at = bench();
  std::vector<float> sum(floats_of(*work.model).begin(), floats_of(*work.model).end());
  ASSERT_TRUE(at->codec().decode(
      bytes, [&](std::size_t offset, std::span<const float> values) -> Result<void> {
        for (std::size_t i = 0; i < values.size(); ++i) sum[offset + i] += values[i];
        return {};
      }));
  auto model = made_model();
  const auto objective = training::make_cross_entropy(plan.training, data.train);
  const auto seed = RandomStream(plan.seed, "site/amber").bits64();
  ASSERT_TRUE(training::train(model, data.train, plan.training, *objective, seed, {0.25, 0.5, 2}));
  const auto trained = model.store();
  for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_NEAR(sum[i], trained[i], 1e-6) << i;
}

TEST_F(LocalRoundTest, ErrorFeedbackMovesOnlyWhenTheUpdateCounted) {
  auto at = bench();
  auto lost = site_of("amber"), kept = site_of("amber");
  for (auto* site : {&lost, &kept}) local_round(*at, *site, task(1));
  EXPECT_THAT(lost.feedback.memory(), IsEmpty()) << "nothing counts before the answer";
  EXPECT_FALSE(lost.pending.memory().empty());
  lost.settle(false);
  kept.settle(true);
  EXPECT_THAT(lost.feedback.memory(), IsEmpty());
  EXPECT_FALSE(kept.feedback.memory().empty());
  const auto fresh = update("amber", task(2));
  EXPECT_EQ(local_round(*at, lost, task(2)).update, fresh) << "as if the lost one had never been";
  EXPECT_NE(local_round(*at, kept, task(2)).update, fresh);
  const std::vector<float> before(kept.feedback.memory().begin(), kept.feedback.memory().end());
  kept.settle(false);
  EXPECT_TRUE(std::ranges::equal(kept.feedback.memory(), before));
}

TEST_F(LocalRoundTest, AModelOfAnotherArchitectureIsRefusedWithAReason) {
  auto site = site_of("amber");
  auto wrong_hash = task(1), short_model = task(1);
  wrong_hash.architecture = sha256("another");
  short_model.model = blob_of({1, 2, 3});
  for (const auto& work : {wrong_hash, short_model}) {
    const auto trained = local_round(*bench(), site, work);
    EXPECT_THAT(trained.why, HasSubstr("is not a test-tiny"));
    EXPECT_THAT(trained.update, IsEmpty());
    EXPECT_EQ(trained.round, 1u);
  }
}

TEST_F(LocalRoundTest, AModelThatIsNotFiniteIsAFailureWithAReason) {
  auto site = site_of("amber");
  auto values = made_model().store();
  values[100] = NAN;
  EXPECT_THAT(
      local_round(*bench(), site, {1, blob_of(values), made_model().space().architecture_hash()})
          .why,
      HasSubstr("finite"));
}

TEST_F(LocalRoundTest, ADistillationTermChangesTheUpdateAndAMissingTeacherIsLeftOut) {
  const auto plain = update("amber", task(2));
  plan.distillation.from = "global";
  EXPECT_NE(update("amber", task(2)), plain);
  plan.distillation.from = "teacher";
  EXPECT_EQ(update("amber", task(2)), plain) << "this site's budget forbade the teacher";
  auto site = site_of("amber");
  site.teacher = std::make_shared<models::FlatModel>(made_model("test-tiny", 2, 5));
  EXPECT_NE(local_round(*bench(), site, task(2)).update, plain);
}

TEST_F(LocalRoundTest, FeaturesOfTheModelReceivedPullAsWell) {
  plan.student.model = {"shufflenet_v2", 0.5, "small"};
  const auto received = made_model("shufflenet_v2");
  plan.distillation.from = "global";
  plan.distillation.loss.soft_weight = 0;
  const auto trained = [&](const std::string& features) {
    plan.distillation.loss.features = features;
    auto site = site_of("amber");
    const auto done = local_round(*bench(), site, {1, blob_of(received.store()), received.space().architecture_hash()});
    EXPECT_EQ(done.why, "");
    return done.update;
  };
  const auto plain = trained("none");
  EXPECT_NE(trained("at"), plain);
  EXPECT_NE(trained("rkd"), plain);
}

TEST_F(LocalRoundTest, TheFirstModelReceivedIsKeptForTheLocalBaseline) {
  auto at = bench();
  auto site = site_of("amber");
  local_round(*at, site, task(1, 3));
  local_round(*at, site, task(2, 4));
  EXPECT_EQ(*site.initial, *task(1, 3).model);
}

class ReadPlanTest : public LocalRoundTest {
 protected:
  std::string why(const std::string& yaml) const {
    const auto read = read_plan(yaml, data);
    return read ? "read" : read.error().message;
  }
  static std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  }
};

TEST_F(ReadPlanTest, ReadsWhatTheCoordinatorWrites) {
  plan.distillation.from = "global";
  auto written = plan;
  const auto read = read_plan(write_options(written), data);
  ASSERT_TRUE(read) << read.error().message;
  auto again = *read;
  EXPECT_EQ(write_options(again), write_options(written));
}

TEST_F(ReadPlanTest, RefusesWhatIsNotForTheDataHereOrNotAPlan) {
  const auto text = write_options(plan);
  EXPECT_THAT(why("rounds: [1"), HasSubstr("plan"));
  EXPECT_THAT(why(text + "\nrun: rm\n"), HasSubstr("run"));
  EXPECT_THAT(why(replaced(text, "classes: 2", "classes: 3")), HasSubstr("for 3 classes"));
  EXPECT_THAT(why(replaced(text, "image_size: 28", "image_size: 64")), HasSubstr("64 px images"));
  EXPECT_THAT(why(replaced(text, "epochs: 2", "epochs: -1")), HasSubstr("epochs"));
}

TEST_F(ReadPlanTest, TellsASiteWhoseMasksLackAClassOfTheKeyForIt) {
  const auto text = replaced(write_options(plan), "classes: 2", "classes: 3");
  EXPECT_THAT(why(text), testing::Not(HasSubstr("data.classes")));
  auto masked = data;
  masked.train.segmentation = true;
  EXPECT_THAT(read_plan(text, masked).error().message, HasSubstr("data.classes"));
}

TEST_F(ReadPlanTest, RefusesADistillationLossThatSaysNothingForItsClasses) {
  plan.distillation.from = "global";
  plan.distillation.loss.loss = "logit-standardised";
  EXPECT_THAT(why(write_options(plan)), HasSubstr("needs 3 classes"));
}

TEST_F(ReadPlanTest, RefusesAFeatureLossThatWouldBeginAnewEveryRound) {
  plan.distillation.from = "global";
  plan.distillation.loss.features = "at";
  EXPECT_EQ(why(write_options(plan)), "read");
  plan.distillation.loss.features = "fitnet";
  EXPECT_THAT(why(write_options(plan)), HasSubstr("would begin anew every round; in the sites' loss take at or rkd"));
}

TEST_F(ReadPlanTest, RefusesATeacherWhoseLogitsDoNotFitTheStudents) {
  plan.teacher = {std::string(64, 'a'), 4096, plan.student};
  EXPECT_EQ(why(write_options(plan)), "read");
  plan.teacher.spec.task.classes = 5;
  EXPECT_THAT(why(write_options(plan)), HasSubstr("its teacher is for 5 classes"));
}

class VerdictTest : public LocalRoundTest {
 protected:
  VerdictTest() {
    plan.rounds = 2;
    plan.personalise_epochs = 1;
  }
  /// A model that was trained on many more images than the site has.
  std::vector<float> good_model() const {
    auto model = made_model("test-tiny", 2, 3);
    auto options = plan.training;
    options.epochs = 25;
    const auto objective = training::make_cross_entropy(options, many);
    EXPECT_TRUE(training::train(model, many, options, *objective, 1));
    return model.store();
  }
  Bytes bytes_of(const std::vector<float>& values) const { return *blob_of(values); }
  const data::Dataset many = phantoms(900, 2, 0, 1, /*seed=*/2);  ///< images that no site has
};

void expect_sane(const transport::Estimate& e) {
  EXPECT_TRUE(e.defined);
  EXPECT_LE(0, e.low);
  EXPECT_LE(e.low, e.value);
  EXPECT_LE(e.value, e.high);
  EXPECT_LE(e.high, 1);
}

TEST_F(VerdictTest, GivesSaneEstimatesOfAllThreeModelsAndIsReproducible) {
  auto site = site_of("amber");
  site.initial = task(1).model;
  const auto global = bytes_of(good_model());
  const auto verdict = judge(*bench(), site, global);
  ASSERT_TRUE(verdict) << verdict.error().message;
  const auto& report = verdict->report;
  EXPECT_EQ(report.train, 64u);
  EXPECT_EQ(report.validation, 36u);
  EXPECT_EQ(report.test, 100u);
  for (const auto* e :
       {&report.local_auc, &report.global_auc, &report.personalised_auc, &report.local_accuracy,
        &report.global_accuracy, &report.personalised_accuracy})
    expect_sane(*e);
  EXPECT_EQ(report.metric, "auc");
  EXPECT_TRUE(report.chosen == "global" || report.chosen == "personalised");
  const auto& chosen = report.chosen == "global" ? report.global_auc : report.personalised_auc;
  EXPECT_NEAR(report.difference, chosen.value - report.local_auc.value, 1e-9);
  EXPECT_LE(report.difference_low, report.difference);
  EXPECT_GE(report.difference_high, report.difference);
  EXPECT_EQ(verdict->local.size(), made_model().space().size());
  const auto again = judge(*bench(), site, global).value();
  EXPECT_EQ(again.local, verdict->local);
  EXPECT_EQ(again.personalised, verdict->personalised);
  EXPECT_EQ(again.report.p_value, report.p_value);
}

TEST_F(VerdictTest, SaysHelpedForAModelThatIsClearlyBetterThanTheSitesOwn) {
  const auto few = splits_of(phantoms(200), 12, 38);
  auto site = site_of("amber");
  site.data = &few;
  site.initial = task(1).model;
  const auto report = judge(*bench(), site, bytes_of(good_model())).value().report;
  EXPECT_GT(report.global_auc.value, report.local_auc.value + 0.1);
  EXPECT_EQ(report.verdict, "federation helped");
  EXPECT_LT(report.p_value, 0.05);
  EXPECT_GT(report.difference_low, 0);
}

TEST_F(VerdictTest, SaysHarmedForAModelThatIsClearlyWorse) {
  auto site = site_of("amber");
  plan.personalise_epochs = 0;
  plan.rounds = 1;
  plan.training.epochs = 0;  // the local model stays what it received first, which is good
  site.initial = blob_of(good_model());
  auto model = made_model("test-tiny", 2, 3);
  model.load(good_model());
  torch::NoGradGuard no_grad;
  for (const auto& piece : model.space().pieces())
    if (piece.name.starts_with("out."))
      model.values().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).neg_();
  const auto report = judge(*bench(), site, bytes_of(model.store())).value().report;
  EXPECT_EQ(report.verdict, "federation harmed");
  EXPECT_LT(report.difference_high, 0);
  EXPECT_NEAR(report.global_auc.value, 1 - report.local_auc.value, 1e-6);
}

TEST_F(VerdictTest, OfAnUntrainedModelAgainstItselfIsNoDifference) {
  auto site = site_of("amber");
  plan.training.epochs = 0;
  plan.personalise_epochs = 0;
  const auto report = judge(*bench(), site, *task(1).model).value().report;
  EXPECT_EQ(report.verdict, "no difference");
  EXPECT_EQ(report.difference, 0);
  EXPECT_EQ(report.p_value, 1);
  EXPECT_EQ(report.chosen, "global");
}

TEST_F(VerdictTest, WithoutATestImageNothingIsTold) {
  auto none = data;
  none.test = none.test.like();
  none.validation = none.validation.like();
  auto site = site_of("amber");
  site.data = &none;
  const auto report = judge(*bench(), site, *task(1).model).value().report;
  EXPECT_FALSE(report.global_auc.defined);
  EXPECT_FALSE(report.global_accuracy.defined);
  EXPECT_EQ(report.verdict, "no difference");
}

TEST_F(VerdictTest, AModelOfAnotherSizeIsRefused) {
  auto site = site_of("amber");
  const auto verdict = judge(*bench(), site, Bytes(12));
  ASSERT_FALSE(verdict);
  EXPECT_THAT(verdict.error().message, HasSubstr("is not a test-tiny"));
}

TEST_F(VerdictTest, AModelThatIsNotFiniteIsJudgedAsHarmful) {
  auto site = site_of("amber");
  plan.training.epochs = 0;
  plan.personalise_epochs = 0;
  site.initial = blob_of(good_model());
  auto values = made_model().store();
  std::ranges::fill(values, NAN);
  const auto report = judge(*bench(), site, bytes_of(values)).value().report;
  EXPECT_EQ(report.verdict, "federation harmed");
  expect_sane(report.global_auc);
  EXPECT_EQ(report.global_auc.value, 0.5) << "it tells nothing from nothing";
}

}  // namespace
}  // namespace preceptor::node
