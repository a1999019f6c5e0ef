#include <gmock/gmock.h>

#include "privacy/differential_privacy/differential_privacy.h"

namespace preceptor::privacy {
namespace {

using testing::HasSubstr;

DifferentialPrivacyOptions options_of(const std::string& yaml) {
  return read_options<DifferentialPrivacyOptions>(*parse_yaml(yaml, "test"), "test").value();
}
double spent(const DifferentialPrivacyOptions& options, int rounds, int epochs) {
  auto round = nominal_round(options, epochs);
  round.steps *= std::uint64_t(rounds);
  return epsilon_spent({round}, options.delta).epsilon;
}

TEST(PrivacyOptions, NoiseIsDerivedFromEpsilonAndSpendsNearlyAllOfIt) {
  for (const char* mode : {"record-local", "record-distributed", "hospital-distributed"})
    for (const double epsilon : {1.0, 8.0}) {
      auto options = options_of(fmt::format("{{mode: {}, epsilon: {}, sampling_rate: 0.05}}", mode, epsilon));
      ASSERT_TRUE(derive_noise(options, 20, 2)) << mode;
      EXPECT_LE(spent(options, 20, 2), epsilon) << mode;
      EXPECT_GT(spent(options, 20, 2), 0.99 * epsilon) << mode;
    }
}

TEST(PrivacyOptions, AGivenMultiplierStays) {
  auto options = options_of("{mode: record-local, noise_multiplier: 1.25}");
  ASSERT_TRUE(derive_noise(options, 1000, 10));
  EXPECT_EQ(options.noise_multiplier, 1.25);
  auto off = options_of("{}");
  ASSERT_TRUE(derive_noise(off, 10, 1));
  EXPECT_EQ(off.noise_multiplier, 0);
}

TEST(PrivacyOptions, ARoundOfTrainingIsAsManyStepsAsDrawEveryImageOnceAnEpoch) {
  const auto round = local_round(options_of("{mode: record-local, sampling_rate: 0.04, noise_multiplier: 1.5}"), 90);
  EXPECT_EQ(round.steps, 2250u);
  EXPECT_NEAR(epsilon_spent({round}, 1e-5).epsilon, 6.7687, 1e-3);
}

TEST(PrivacyOptions, FewerImagesAStepPayForAStepMore) {
  const Mechanism promised{Noise::kGaussian, 0.05, 1, {}, 20};
  EXPECT_TRUE(spends_no_more(promised, promised, 10, 1e-5));
  EXPECT_TRUE(spends_no_more({Noise::kGaussian, 0.0484, 1, {}, 21}, promised, 10, 1e-5));
  EXPECT_FALSE(spends_no_more({Noise::kGaussian, 0.05, 1, {}, 21}, promised, 10, 1e-5));
  EXPECT_FALSE(spends_no_more({Noise::kGaussian, 0.06, 1, {}, 17}, promised, 10, 1e-5));
}

TEST(PrivacyOptions, ASiteRefusesByTheNameOfItsRule) {
  PrivacyLimits limits;
  auto options = options_of("{mode: hospital-distributed, noise_multiplier: 1, honest: 3, delta: 1.0e-5}");
  const auto why = [&](std::uint64_t records) {
    const auto checked = check_limits(options, limits, records);
    return checked ? std::string() : checked.error().message;
  };
  EXPECT_THAT(why(1000), HasSubstr("limits.privacy.honest_max is 1"));
  limits.honest_max = 3;
  EXPECT_EQ(why(1000), "");
  EXPECT_THAT(why(20'000), HasSubstr("1/(10 · 20000 records) allow 5e-06"));
  limits.delta_max = 1e-6;
  EXPECT_THAT(why(1000), HasSubstr("limits.privacy.delta_max"));
  limits.delta_max = 0.1;  // the rule of the records holds all the same
  EXPECT_THAT(why(20'000), HasSubstr("5e-06"));
  options.noise_multiplier = 0;
  EXPECT_THAT(why(1000), HasSubstr("noise_multiplier is 0"));
  options.mode = "off";
  EXPECT_EQ(why(1000), "");
  limits.required = true;
  EXPECT_THAT(why(1000), HasSubstr("limits.privacy.required"));
}

TEST(PrivacyOptions, AnUnknownModeIsAnsweredWithTheKnownOnes) {
  const auto read = read_options<DifferentialPrivacyOptions>(*parse_yaml("{mode: local}", "test"), "test");
  ASSERT_FALSE(read);
  EXPECT_THAT(read.error().message, HasSubstr("record-local"));
}

}  // namespace
}  // namespace preceptor::privacy
