#include "node/guard.h"

#include <gmock/gmock.h>

#include "models/flat_model.h"
#include "node/local_round.h"
#include "tests/support/temp_dir.h"
#include "tests/training/made.h"

namespace preceptor::node {
namespace {

using testing::HasSubstr;
using training::test::phantoms;

class PrivacyGuardTest : public testing::Test {
 protected:
  PrivacyGuardTest() {
    plan.rounds = 3;
    plan.student = {{"shufflenet_v2", 0.5, "small", "", "group"}, {2, 1, 28}};
    plan.training.epochs = 1;
    dp().mode = "record-local";
    dp().noise_multiplier = 1;
    dp().sampling_rate = 0.1;
    plan.update.ring.max_nodes = 3;
    plan.update.ring.weights = "none";
    plan.update.ring.fidelity = false;
  }
  privacy::DifferentialPrivacyOptions& dp() { return plan.privacy.differential_privacy; }
  void distribute() {
    dp().mode = "hospital-distributed";
    plan.update.profile = "secure";
    plan.update.ring.noise = 1e8;
    plan.update.ring.bits = 4;
    plan.update.ring.ring_bits = 0;
  }
  Result<std::unique_ptr<PrivacyGuard>> guard(bool simulated = true) {
    const auto model = models::FlatModel::create(plan.student).value();
    return PrivacyGuard::create(plan, model.space(), data.train, "amber", limits, {folder, simulated});
  }
  std::string refusal(bool simulated = true) {
    const auto made = guard(simulated);
    return made ? "" : made.error().message;
  }

  test::TempDir dir;
  std::filesystem::path folder = dir / "privacy";
  const data::Splits data = [] {
    const auto all = phantoms(130);
    const auto order = RandomStream(1, "splits").permutation(all.size());
    const auto index = std::span(order);
    return data::Splits{all.subset(index.first(107)), all.subset(index.subspan(107, 10)), all.subset(index.subspan(117))};
  }();
  Plan plan;
  privacy::PrivacyLimits limits{1000, 0, 1, false};
};

TEST_F(PrivacyGuardTest, WithoutPrivacyThereIsNone) {
  dp().mode = "off";
  EXPECT_EQ(guard().value(), nullptr);
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST_F(PrivacyGuardTest, ASitesBatchSpendsNoMoreThanThePlansRate) {
  const auto made = guard();
  ASSERT_TRUE(made) << made.error().message;
  const auto& training = (*made)->training();
  EXPECT_TRUE(training.record_privacy.on);
  EXPECT_EQ(training.batch, 10);  // of 107 images
  EXPECT_EQ(training.record_privacy.randomness, "seeded");
  EXPECT_EQ((*made)->round().steps, 11u);
  EXPECT_TRUE(privacy::spends_no_more((*made)->round(), privacy::local_round(dp(), 1), 3, dp().delta));
}

TEST_F(PrivacyGuardTest, ARealSitesNoiseIsSecret) { EXPECT_EQ(guard(false).value()->training().record_privacy.randomness, "system"); }

TEST_F(PrivacyGuardTest, EachRuleRefusesByName) {
  plan.training.class_weights = "inverse";
  EXPECT_THAT(refusal(), HasSubstr("training.class_weights"));
  plan.training.class_weights = "none";
  plan.student.model.normalisation = "batch";
  EXPECT_THAT(refusal(), HasSubstr("student.model.normalisation: group"));
  plan.student.model.normalisation = "group";
  dp().delta = 0.01;
  EXPECT_THAT(refusal(), HasSubstr("limits.privacy.delta_max"));
  dp().delta = 1e-5;
  dp().sampling_rate = 0.001;
  EXPECT_THAT(refusal(), HasSubstr("less than one image a step"));
  dp().sampling_rate = 0.1;
  limits.epsilon_max = 1;
  EXPECT_THAT(refusal(), HasSubstr("limits.privacy.epsilon_max is 1"));
  limits.epsilon_max = 1000;
  plan.training.record_privacy.on = true;
  EXPECT_THAT(refusal(), HasSubstr("training.private.on has no ledger"));
  plan.training.record_privacy.on = false;
  EXPECT_EQ(refusal(), "");
  folder.clear();
  EXPECT_THAT(refusal(), HasSubstr("keeps no ledger"));
  dp().mode = "off";
  limits.required = true;
  EXPECT_THAT(refusal(), HasSubstr("limits.privacy.required"));
}

TEST_F(PrivacyGuardTest, EachRuleOfDistributedNoiseRefusesByName) {
  distribute();
  limits.epsilon_max = 1e6;
  EXPECT_EQ(refusal(), "");
  plan.update.profile = "plain";
  EXPECT_THAT(refusal(), HasSubstr("update.profile: secure"));
  plan.update.profile = "secure";
  plan.update.ring.weights = "capped";
  EXPECT_THAT(refusal(), HasSubstr("update.ring.weights"));
  plan.update.ring.weights = "none";
  plan.update.ring.histograms = 1;
  EXPECT_THAT(refusal(), HasSubstr("update.ring.histograms"));
  plan.update.ring.histograms = 0;
  plan.update.ring.fidelity = true;
  EXPECT_THAT(refusal(), HasSubstr("update.ring.fidelity"));
  plan.update.ring.fidelity = false;
  plan.update.ring.noise = 3;
  EXPECT_THAT(refusal(), HasSubstr("update.ring.noise is 3"));
  plan.update.ring.noise = 1e8;
  dp().honest = 3;
  EXPECT_THAT(refusal(), HasSubstr("limits.privacy.honest_max"));
  limits.honest_max = 3;
  EXPECT_EQ(refusal(), "");
  EXPECT_THAT(refusal(/*simulated=*/false), HasSubstr("is sure to hold that of 1;"));
  auto& masking = plan.privacy.secure_aggregation;
  masking.mode = "masked";
  masking.k_min = 5;
  masking.colluders = 2;
  EXPECT_EQ(refusal(/*simulated=*/false), "") << "three of five are honest";
  masking.colluders = 3;
  EXPECT_THAT(refusal(/*simulated=*/false), HasSubstr("is sure to hold that of 2;"));
  masking.mode = "off";
  dp().mode = "record-distributed";
  plan.update.ring.error_feedback = true;
  EXPECT_THAT(refusal(), HasSubstr("update.ring.error_feedback"));
}

TEST_F(PrivacyGuardTest, NoUpdateLeavesWithoutADebitAndNoneLeavesASpentDataSet) {
  SiteState site;
  site.name = "amber";
  site.data = &data;
  site.guard = guard().value();
  const auto bench = Workbench::create(plan).value();
  const auto parameters = bench->student().store();
  const auto bytes = std::as_bytes(std::span(parameters));
  const auto model = std::make_shared<const Bytes>(bytes.begin(), bytes.end());
  const auto round = [&](std::uint32_t number) { return local_round(*bench, site, {number, model, bench->student().space().architecture_hash()}); };
  const auto first = round(1);
  ASSERT_EQ(first.why, "");
  EXPECT_EQ(first.train_loss, 0);
  ASSERT_EQ(site.guard->ledger().debits.size(), 1u);
  EXPECT_EQ(site.guard->ledger().debits[0].round, 1u);
  // The same round again, after a crash say, is paid again.
  EXPECT_EQ(round(1).update, first.update);
  EXPECT_EQ(site.guard->ledger().debits.size(), 2u);
  // Another job spent the rest meanwhile.
  const double spent = site.guard->ledger().spent(limits.delta(107)).epsilon;
  site.guard.reset();
  limits.epsilon_max = spent * 1.3;
  plan.rounds = 1;
  site.guard = guard().value();
  ASSERT_EQ(round(1).why, "");
  const auto refused = round(2);
  EXPECT_THAT(refused.why, HasSubstr("privacy budget"));
  EXPECT_TRUE(refused.update.empty());
}

}  // namespace
}  // namespace preceptor::node
