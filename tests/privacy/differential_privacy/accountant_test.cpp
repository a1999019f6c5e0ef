#include "privacy/differential_privacy/accountant.h"

#include <gtest/gtest.h>

#include <cmath>

namespace preceptor::privacy {
namespace {

std::vector<Mechanism> gaussian(double q, double sigma, std::uint64_t steps) { return {{Noise::kGaussian, q, sigma, {}, steps}}; }

double relative(double value, double reference) { return std::abs(value / reference - 1); }

// Values by accountants of other libraries. Opacus and TensorFlow Privacy compute the same Rényi series
// and conversion: 1e-6. Loss distributions of dp_accounting (grid 1e-4) and PRV are held to 1e-3.
struct Row {
  double q, sigma;
  std::uint64_t steps;
  double delta;
  double rdp, rdp_tolerance, order;
  double pld;
};
const Row kRows[] = {
    {0.04, 1.5, 2250, 1e-5, 7.32911117143, 1e-6, 3.9, 6.768787},         // opacus/tests/accountants_test.py
    {0.04, 1.5, 2249, 1e-5, 7.327501, 1e-3, 3.9, 6.767051},              // the same; Rényi by dp_accounting
    {150 / 60000.0, 1.3, 6000, 1e-5, 0.7242234026109595, 1e-6, 19, 0.640111},   // TFP compute_dp_sgd_privacy_test.py
    {100 / 100000.0, 1.0, 30000, 1e-7, 1.4154988495444842, 1e-6, 13, 1.098199},  // the same
    {1, 4.530877117, 1, 1e-6, 1.0, 1e-6, 22, 0.927392},                  // dp_accounting rdp test; exact
    {0.01, 1.0, 1000, 1e-5, 2.101365, 1e-6, 7.8, 1.828244},              // Opacus' code; dp_accounting's loss distribution
    {0.01, 4.0, 10000, 1e-5, 1.035490, 1e-6, 17, 0.946999},
    {64 / 5000.0, 1.0, 3900, 1e-5, 5.306228, 1e-6, 4.7, 4.858798},
    {0.05, 2.0, 1000, 1e-4, 3.522586, 1e-6, 5.3, 3.183426},
    {1, 10, 50, 1e-5, 3.188992, 1e-6, 7.2, 2.943225},                    // exact
    {1, 20, 50, 1e-5, 1.478122, 1e-6, 13, 1.356467},                     // exact
};

TEST(Accountant, RenyiEpsilonsAreThoseOfOpacusAndTensorflowPrivacy) {
  for (const auto& row : kRows) {
    const auto spent = rdp_spent(gaussian(row.q, row.sigma, row.steps), row.delta);
    EXPECT_LT(relative(spent.epsilon, row.rdp), row.rdp_tolerance) << row.q << " " << row.sigma << " " << row.steps;
    EXPECT_NEAR(spent.order, row.order, 1e-9) << row.q << " " << row.sigma << " " << row.steps;
  }
}

TEST(Accountant, LossDistributionsAreThoseOfDpAccounting) {
  for (const auto& row : kRows) {
    const SampledGaussian part{row.q, row.sigma, row.steps};
    EXPECT_LT(relative(PrivacyLoss(std::span(&part, 1)).epsilon(row.delta), row.pld), 1e-3) << row.q << " " << row.sigma;
    // The reference's own grid.
    EXPECT_LT(relative(PrivacyLoss(std::span(&part, 1), 1e-4).epsilon(row.delta), row.pld), 2e-5) << row.q << " " << row.sigma;
  }
}

TEST(Accountant, TheLossDistributionLiesBetweenPrvsBounds) {
  const auto spent = epsilon_spent(gaussian(0.04, 1.5, 2249), 1e-5);  // microsoft/prv_accountant, via Opacus' test
  EXPECT_EQ(spent.accountant, "pld");
  EXPECT_GT(spent.epsilon, 6.756695);
  EXPECT_LT(spent.epsilon, 6.777395712);
  EXPECT_LT(relative(spent.epsilon, 6.767045), 1e-3);
}

TEST(Accountant, DeltasAtEpsilonOneAreThoseOfDpAccounting) {  // google/differential-privacy, pld test
  const SampledGaussian sampled{0.2, 0.5, 3}, plain{1, std::sqrt(3), 3};
  EXPECT_NEAR(PrivacyLoss(std::span(&sampled, 1)).delta(1), 0.15594, 1e-3);
  EXPECT_NEAR(PrivacyLoss(std::span(&plain, 1)).delta(1), 0.126936, 1e-6);
}

TEST(Accountant, FiveRenyiValuesAreThoseOfDpAccounting) {  // google/differential-privacy, rdp test, rtol 1e-4
  const std::pair<double, double> kValues[] = {
      {1.5, 6.70579741e-4}, {2.5, 1.08548710e-3}, {5, 2.18075656e-3}, {50, 2.38460375e-2}, {100, 1.67416308e2}};
  for (const auto& [order, value] : kValues) {
    const double ours = 50 * sampled_gaussian_rdp(0.01, 2.5, order);
    if (order == std::floor(order)) { EXPECT_LT(relative(ours, value), 1e-4) << order; }
    else { EXPECT_LT(ours, value) << order; }  // theirs is interpolated from above; exact integral below
  }
}

TEST(Accountant, ARenyiValueOfAFractionIsThatOfTheIntegral) {
  // ∫ of the definition by mpmath, 30 digits.
  EXPECT_LT(relative(sampled_gaussian_rdp(0.04, 1.5, 3.9) * 2.9, 0.005316286379), 1e-9);
}

TEST(Accountant, ThePureMechanismConvertsAsInDpAccounting) {  // google/differential-privacy, rdp test
  std::vector<double> orders, curve;
  for (int order = 2; order <= 32; ++order) orders.push_back(order), curve.push_back(1.1);
  const auto spent = rdp_to_epsilon(orders, curve, 1e-5);
  EXPECT_NEAR(spent.epsilon, 1.32783806176, 1e-11);
  EXPECT_EQ(spent.order, 32);
}

TEST(Accountant, FractionsOfOrdersLieBetweenTheWholeOnesAroundThem) {
  for (const double q : {1e-4, 0.01, 0.3, 0.9})
    for (const double sigma : {0.4, 1.0, 5.0})
      for (const double order : {2.0, 3.0, 9.0}) {
        const double below = sampled_gaussian_rdp(q, sigma, order), above = sampled_gaussian_rdp(q, sigma, order + 1);
        double last = below;
        for (const double fraction : {0.1, 0.5, 0.9}) {
          const double value = sampled_gaussian_rdp(q, sigma, order + fraction);
          EXPECT_GE(value, last * (1 - 1e-6)) << q << " " << sigma << " " << order + fraction;
          last = value;
        }
        EXPECT_GE(above, last * (1 - 1e-6));
      }
}

TEST(Accountant, DistributedDiscreteGaussiansSpendWhatTheReferenceCodeSays) {
  struct Case {
    std::uint32_t shares;
    double dimension, multiplier;
    int bits;
    std::uint64_t steps;
    double epsilon, order;
  };
  // google-research/federated, distributed_dp/accounting_utils.py: clip 1, β = e^-1/2, k = 4 deviations.
  const Case kCases[] = {{10, 1 << 20, 10, 16, 50, 3.850825, 6},
                         {10, 1 << 20, 10, 20, 50, 3.193161, 7},
                         {20, 1 << 20, 20, 18, 50, 1.557561, 12},
                         {5, 1 << 17, 10, 16, 30, 2.464610, 9}};
  for (const auto& c : kCases) {
    const double n = c.shares, k = 4, local = c.multiplier / std::sqrt(n);
    const double scale = std::sqrt(std::pow(2.0, 2 * c.bits) - n * k * k) / (2 * k * std::sqrt(n * n / c.dimension + n * local * local));
    const double l2 = rounded_l2_bound(scale, c.dimension, std::exp(-0.5));
    const IntegerNoise noise{local * scale, c.shares, l2, rounded_l1_bound(l2, c.dimension), c.dimension};
    std::vector<double> orders, curve;
    for (int order = 2; order <= 63; ++order)
      orders.push_back(order), curve.push_back(double(c.steps) * discrete_gaussian_rdp(noise, order));
    const auto spent = rdp_to_epsilon(orders, curve, 1e-5);
    EXPECT_LT(relative(spent.epsilon, c.epsilon), 1e-6) << c.shares << " " << c.bits;
    EXPECT_EQ(spent.order, c.order);
  }
}

TEST(Accountant, OneDiscreteGaussianIsZeroConcentrated) {  // arXiv:2004.00010, thm 4: ρ = Δ²/2σ²
  const IntegerNoise noise{30, 1, 6, 12, 4};
  for (const double order : {1.5, 2.0, 17.0}) EXPECT_DOUBLE_EQ(discrete_gaussian_rdp(noise, order), order * 36 / (2 * 900));
}

/// Σ over the integers of P^α Q^(1-α), as Rényi divergence of a distribution from itself moved by `shift`.
double moved_divergence(const std::vector<double>& masses, int shift, double order) {
  double sum = 0;
  for (std::size_t i = std::size_t(shift); i < masses.size(); ++i)
    if (masses[i] > 0 && masses[i - std::size_t(shift)] > 0)
      sum += std::exp(order * std::log(masses[i]) + (1 - order) * std::log(masses[i - std::size_t(shift)]));
  return std::log(sum) / (order - 1);
}

TEST(Accountant, TheBoundsOfIntegerNoiseHoldForOneElementByDirectSum) {
  for (const double variance : {4.0, 25.0, 100.0}) {
    std::vector<double> skellam, gauss;
    double total = 0;
    for (int x = -400; x <= 400; ++x) {
      skellam.push_back(std::exp(-variance) * std::cyl_bessel_i(std::abs(x), variance));
      gauss.push_back(std::exp(-x * x / (2 * variance)));
      total += gauss.back();
    }
    for (double& m : gauss) m /= total;
    for (const int shift : {1, 2, 5})
      for (const double order : {2.0, 3.0, 8.0}) {
        const IntegerNoise noise{std::sqrt(variance), 1, double(shift), double(shift), 1};
        const double exact = moved_divergence(skellam, shift, order), bound = skellam_rdp(noise, order);
        EXPECT_LE(exact, bound) << variance << " " << shift << " " << order;
        if (variance >= 25) { EXPECT_LE(bound, exact * 1.6) << variance << " " << shift << " " << order; }
        EXPECT_LE(moved_divergence(gauss, shift, order), discrete_gaussian_rdp(noise, order) * (1 + 1e-9));
      }
  }
}

TEST(Accountant, SkellamOfLargeVarianceSpendsAsMuchAsTheGaussian) {
  for (const double order : {2.0, 10.0}) {
    const IntegerNoise noise{1e4, 10, 1e3, 1e5, 1e4};
    EXPECT_LT(relative(skellam_rdp(noise, order), order * 1e6 / (2 * 1e9)), 1e-3);
  }
}

TEST(Accountant, SamplingMakesIntegerNoiseCheaperAndNeverDearer) {
  const auto plain = [](double order) { return discrete_gaussian_rdp({100, 4, 50, 500, 100}, order); };
  for (const double order : {2.0, 3.5, 10.0}) {
    EXPECT_LT(amplified_rdp(0.01, plain, order), 0.1 * plain(order));
    EXPECT_LE(amplified_rdp(0.9, plain, order), plain(order));
    EXPECT_DOUBLE_EQ(amplified_rdp(1, plain, order), plain(order));
    // The bound is for any mechanism, so the Gaussian's own series lies below it.
    EXPECT_LE(sampled_gaussian_rdp(0.01, 4, std::ceil(order)), amplified_rdp(0.01, [](double a) { return a / 32; }, order) * (1 + 1e-9));
  }
}

TEST(Accountant, TheAnalyticGaussianHasThePublishedMultipliers) {  // Balle and Wang's code
  EXPECT_NEAR(gaussian_multiplier(1, 1e-5), 3.730631635, 1e-8);
  EXPECT_NEAR(gaussian_multiplier(8, 1e-5), 0.600229073, 1e-8);
}

TEST(Accountant, NoLossDistributionIsBelowTheExactGaussian) {
  for (const double sigma : {0.7, 2.0, 10.0})
    for (const std::uint64_t steps : {1, 50, 5000}) {
      const SampledGaussian part{1, sigma * std::sqrt(double(steps)), steps};
      const PrivacyLoss loss(std::span(&part, 1));
      for (const double epsilon : {0.0, 0.3, 1.0, 3.0}) {
        const double exact = gaussian_delta(sigma, epsilon);
        EXPECT_GT(loss.delta(epsilon), exact - 1e-10) << sigma << " " << steps << " " << epsilon;
        EXPECT_LT(loss.delta(epsilon), exact * (1 + 1e-3) + 1e-10) << sigma << " " << steps << " " << epsilon;
      }
    }
}

TEST(Accountant, DifferentStepsComposeToOneBound) {
  const auto both = std::vector<Mechanism>{{Noise::kGaussian, 1, 8, {}, 30}, {Noise::kGaussian, 1, 16, {}, 80}};
  // Gaussians compose to a Gaussian: 1/σ² = 30/64 + 80/256.
  const double sigma = 1 / std::sqrt(30 / 64.0 + 80 / 256.0);
  const auto spent = epsilon_spent(both, 1e-5);
  EXPECT_EQ(spent.accountant, "pld");
  EXPECT_NEAR(gaussian_delta(sigma, spent.epsilon), 1e-5, 1e-9);
  // The order in which it was released and how it is cut into parts do not count.
  const auto cut = std::vector<Mechanism>{{Noise::kGaussian, 1, 16, {}, 50}, {Noise::kGaussian, 1, 8, {}, 30}, {Noise::kGaussian, 1, 16, {}, 30}};
  EXPECT_NEAR(epsilon_spent(cut, 1e-5).epsilon, spent.epsilon, 1e-9);
  EXPECT_NEAR(rdp_spent(cut, 1e-5).epsilon, rdp_spent(both, 1e-5).epsilon, 1e-12);
}

TEST(Accountant, IntegerNoiseBesideGaussianNoiseIsComposedByRenyi) {
  const Mechanism integers{Noise::kDiscreteGaussian, 1, 1, {100, 5, 20, 200, 100}, 4};
  const auto spent = epsilon_spent({integers, gaussian(0.01, 1, 100)[0]}, 1e-5);
  EXPECT_EQ(spent.accountant, "rdp");
  EXPECT_GT(spent.epsilon, epsilon_spent(gaussian(0.01, 1, 100), 1e-5).epsilon);
}

TEST(Accountant, NothingReleasedIsNothingSpent) { EXPECT_EQ(epsilon_spent({}, 1e-5).epsilon, 0); }

TEST(Accountant, CalibratedNoiseIsThatOfOpacus) {
  // opacus/tests/accountants_test.py: ε = 8, δ = 1e-5, q = 0.04, 90 epochs, to 0.01 of ε.
  const std::uint64_t steps = 2250;
  const auto by_curves = calibrate(8, [&](double sigma) { return rdp_spent(gaussian(0.04, sigma, steps), 1e-5).epsilon; });
  ASSERT_TRUE(by_curves);
  EXPECT_NEAR(*by_curves, 1.416, 2e-3);
  const auto tighter = calibrate_gaussian(8, 1e-5, 0.04, steps);
  ASSERT_TRUE(tighter);
  EXPECT_NEAR(*tighter, 1.34765625, 2e-3);
  EXPECT_LE(epsilon_spent(gaussian(0.04, *tighter, steps), 1e-5).epsilon, 8);
  EXPECT_GT(epsilon_spent(gaussian(0.04, *tighter * 0.999, steps), 1e-5).epsilon, 8);
}

TEST(Accountant, CalibrationSaysWhenNoNoiseIsEnough) {
  const auto none = calibrate(1, [](double) { return 2.0; });
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::kInvalid);
}

TEST(Accountant, ArgumentsOutOfRangeAreRefused) {
  EXPECT_THROW(sampled_gaussian_rdp(0, 1, 2), std::invalid_argument);
  EXPECT_THROW(sampled_gaussian_rdp(0.5, 0, 2), std::invalid_argument);
  EXPECT_THROW(sampled_gaussian_rdp(0.5, 1, 1), std::invalid_argument);
  EXPECT_FALSE(check({Noise::kGaussian, 1.5, 1, {}, 1}));
  EXPECT_FALSE(check({Noise::kGaussian, std::nan(""), 1, {}, 1}));
  EXPECT_FALSE(check({Noise::kGaussian, 0.5, 1, {}, 0}));
  EXPECT_FALSE(check({Noise::kSkellam, 0.5, 1, {0, 1, 1, 1, 1}, 1}));
  EXPECT_TRUE(check({Noise::kSkellam, 0.5, 1, {2, 1, 1, 1, 1}, 1}));
}

}  // namespace
}  // namespace preceptor::privacy
