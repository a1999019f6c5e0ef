#include "privacy/differential_privacy/sampler.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <functional>
#include <map>

namespace preceptor::privacy {
namespace {

constexpr int kDraws = 1'000'000;

// Fixed seeds. False alarm of every test below: 1e-6 of the seeds would fail it. χ² by the
// Wilson-Hilferty normal, whose z is below 4.75; a mean's z below 4.9.
std::map<std::int64_t, int> histogram(const IntegerSampler& sampler, const char* name) {
  const auto source = seeded_source(RandomStream(5, name));
  std::vector<std::int64_t> draws(kDraws);
  EXPECT_TRUE(sampler.sample(*source, draws));
  std::map<std::int64_t, int> counts;
  for (const auto draw : draws) ++counts[draw];
  return counts;
}

double chi_square_z(const std::map<std::int64_t, int>& counts, const std::function<double(std::int64_t)>& probability, std::int64_t widest) {
  double chi = 0, rest = 1, cells = 0;
  int counted = 0;
  for (std::int64_t x = -widest; x <= widest; ++x) {
    const double expected = probability(x) * kDraws;
    if (expected < 10) continue;
    const auto found = counts.find(x);
    const int count = found == counts.end() ? 0 : found->second;
    chi += (count - expected) * (count - expected) / expected;
    rest -= probability(x);
    counted += count;
    ++cells;
  }
  const double expected = rest * kDraws;  // everything else is one cell
  if (expected > 5) chi += (kDraws - counted - expected) * (kDraws - counted - expected) / expected, ++cells;
  const double k = cells - 1;
  return (std::cbrt(chi / k) - (1 - 2 / (9 * k))) / std::sqrt(2 / (9 * k));
}

struct Moments {
  double mean = 0, variance = 0, fourth = 0;
};
Moments moments(const std::map<std::int64_t, int>& counts) {
  Moments m;
  for (const auto& [x, n] : counts) m.mean += double(x) * n / kDraws;
  for (const auto& [x, n] : counts) {
    const double d = double(x) - m.mean;
    m.variance += d * d * n / kDraws;
    m.fourth += d * d * d * d * n / kDraws;
  }
  return m;
}

void expect_distribution(const IntegerSampler& sampler, const std::function<double(std::int64_t)>& probability, double variance, const char* name) {
  const auto counts = histogram(sampler, name);
  EXPECT_LT(chi_square_z(counts, probability, std::int64_t(8 * std::sqrt(variance)) + 10), 4.75) << name;
  const auto m = moments(counts);
  EXPECT_LT(std::abs(m.mean), 4.9 * std::sqrt(variance / kDraws)) << name;
  EXPECT_LT(std::abs(m.variance - variance), 4.9 * std::sqrt((m.fourth - variance * variance) / kDraws)) << name;
}

std::function<double(std::int64_t)> gaussian_masses(double variance) {
  double total = 0;
  for (std::int64_t x = -5000; x <= 5000; ++x) total += std::exp(-double(x) * double(x) / (2 * variance));
  return [=](std::int64_t x) { return std::exp(-double(x) * double(x) / (2 * variance)) / total; };
}

TEST(Sampler, DiscreteGaussiansHaveTheirProbabilitiesAndVariance) {
  struct Case {
    Fraction variance;
    double at_zero, at_one, own_variance;
  };
  // P(0), P(1) and variances by direct sums, 12 digits (0: not listed).
  const Case kCases[] = {{{1, 1}, .398942278267, .241970723224, .999999788768},
                         {{1, 4}, .786570707042, 0, .215012675088},
                         {{9, 1}, .132980760134, 0, 9},
                         {{2, 3}, 0, 0, 0},
                         {{10001, 7}, 0, 0, 10001 / 7.0}};
  for (const auto& c : kCases) {
    const auto sampler = discrete_gaussian(c.variance);
    ASSERT_TRUE(sampler);
    const auto masses = gaussian_masses(c.variance.value());
    if (c.at_zero > 0) { EXPECT_NEAR(masses(0), c.at_zero, 1e-12); }
    if (c.at_one > 0) { EXPECT_NEAR(masses(1), c.at_one, 1e-12); }
    double variance = 0;
    for (std::int64_t x = -5000; x <= 5000; ++x) variance += double(x * x) * masses(x);
    if (c.own_variance > 0) { EXPECT_NEAR(variance, c.own_variance, 1e-11 * std::max(1.0, c.own_variance)); }
    expect_distribution(**sampler, masses, variance, "gaussian");
  }
}

TEST(Sampler, ADistributionThatIsSlightlyOffIsSeen) {
  const auto counts = histogram(**discrete_gaussian({100, 1}), "off");
  EXPECT_GT(chi_square_z(counts, gaussian_masses(103), 90), 10);
  EXPECT_GT(chi_square_z(counts, [](std::int64_t x) { static const auto masses = gaussian_masses(100); return masses(x - 1); }, 90), 10);
}

TEST(Sampler, AWideDiscreteGaussianIsOne) {
  // 2^20 deviations, the way of 128-bit fractions: folded into 64 cells of equal probability.
  const Fraction variance{(1ull << 49) + 12345, 1u << 9};
  const auto sampler = discrete_gaussian(variance);
  ASSERT_TRUE(sampler);
  const auto source = seeded_source(RandomStream(6, "wide"));
  std::vector<std::int64_t> draws(kDraws);
  ASSERT_TRUE((*sampler)->sample(*source, draws));
  std::map<std::int64_t, int> cells;
  for (const auto draw : draws) ++cells[std::min<std::int64_t>(63, std::int64_t(64 * 0.5 * std::erfc(-double(draw) / std::sqrt(2 * variance.value()))))];
  EXPECT_LT(chi_square_z(cells, [](std::int64_t x) { return x >= 0 && x < 64 ? 1 / 64.0 : 0; }, 63), 4.75);
}

TEST(Sampler, SkellamNoiseHasItsProbabilitiesAndVariance) {
  for (const Fraction variance : {Fraction{1, 3}, {1, 1}, {5, 2}, {25, 1}, {127, 2}}) {
    const double mu = variance.value();
    const auto sampler = skellam(variance);
    ASSERT_TRUE(sampler);
    expect_distribution(**sampler, [&](std::int64_t x) { return std::exp(-mu) * std::cyl_bessel_i(double(std::abs(x)), mu); }, mu, "skellam");
  }
}

TEST(Sampler, ASumOfSkellamSharesIsSkellam) {
  const auto share = skellam({3, 5});
  ASSERT_TRUE(share);
  const auto source = seeded_source(RandomStream(7, "shares"));
  std::vector<std::int64_t> shares(5 * kDraws);
  ASSERT_TRUE((*share)->sample(*source, shares));
  std::map<std::int64_t, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    std::int64_t sum = 0;
    for (int j = 0; j < 5; ++j) sum += shares[std::size_t(5 * i + j)];
    ++counts[sum];
  }
  EXPECT_LT(chi_square_z(counts, [](std::int64_t x) { return std::exp(-3.0) * std::cyl_bessel_i(double(std::abs(x)), 3.0); }, 40), 4.75);
}

TEST(Sampler, ExponentialCoinsFallAsOftenAsTheyShould) {
  const auto source = seeded_source(RandomStream(8, "coins"));
  for (const auto& [n, d] : std::vector<std::pair<std::uint64_t, std::uint64_t>>{{0, 1}, {1, 1000}, {1, 2}, {1, 1}, {7, 3}, {1ull << 62, 1ull << 63}}) {
    const double p = std::exp(-double(n) / double(d));
    int heads = 0;
    for (int i = 0; i < kDraws; ++i) heads += bernoulli_exp(*source, n, d);
    EXPECT_LE(std::abs(heads - p * kDraws), 4.9 * std::sqrt(p * (1 - p) * kDraws)) << n << "/" << d;
  }
}

TEST(Sampler, DiscreteLaplaceFallsByTheSameFactorAtEachStep) {
  const auto source = seeded_source(RandomStream(9, "laplace"));
  for (const std::uint64_t scale : {1, 5}) {
    const double r = std::exp(-1.0 / double(scale)), at_zero = (1 - r) / (1 + r);
    std::map<std::int64_t, int> counts;
    for (int i = 0; i < kDraws; ++i) ++counts[discrete_laplace(*source, scale)];
    EXPECT_LT(chi_square_z(counts, [&](std::int64_t x) { return at_zero * std::pow(r, double(std::abs(x))); }, 100), 4.75);
  }
}

TEST(Sampler, UniformWordsBelowABoundAreEvenWhereTheBoundDividesNothing) {
  const auto source = seeded_source(RandomStream(10, "below"));
  const std::uint64_t bound = 3ull << 62;  // a quarter of the words is thrown away
  std::map<std::int64_t, int> counts;
  for (int i = 0; i < kDraws; ++i) {
    const auto value = uniform_below(*source, bound);
    ASSERT_LT(value, bound);
    ++counts[std::int64_t(value >> 60)];
  }
  EXPECT_LT(chi_square_z(counts, [](std::int64_t x) { return x >= 0 && x < 12 ? 1 / 12.0 : 0; }, 12), 4.75);
}

TEST(Sampler, ASeedGivesTheSameNoiseAndSaysThatItIsNoSecret) {
  const auto sampler = discrete_gaussian({100, 1});
  ASSERT_TRUE(sampler);
  std::vector<std::int64_t> first(1000), again(1000), other(1000);
  const auto draw = [&](std::uint64_t seed, std::span<std::int64_t> out) {
    const auto source = seeded_source(RandomStream(seed, "noise"));
    EXPECT_FALSE(source->secret());
    ASSERT_TRUE((*sampler)->sample(*source, out));
  };
  draw(1, first);
  draw(1, again);
  draw(2, other);
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

TEST(Sampler, SecretNoiseNeverRepeats) {
  const auto sampler = discrete_gaussian({1ull << 40, 1});
  ASSERT_TRUE(sampler);
  std::vector<std::int64_t> first(100), second(100);
  ASSERT_TRUE((*sampler)->sample(*secret_source(), first));
  ASSERT_TRUE((*sampler)->sample(*secret_source(), second));
  EXPECT_TRUE(secret_source()->secret());
  EXPECT_NE(first, second);
}

class Empty final : public RandomSource {
 public:
  bool secret() const override { return true; }

 private:
  Result<void> fill(std::span<std::uint64_t>) override { return fail(Code::kUnavailable, "no entropy"); }
};

TEST(Sampler, WithoutRandomnessThereIsAnErrorAndNoNoise) {
  Empty empty;
  std::vector<std::int64_t> out(3);
  const auto sampled = discrete_gaussian({1, 1}).value()->sample(empty, out);
  ASSERT_FALSE(sampled);
  EXPECT_EQ(sampled.error().code, Code::kUnavailable);
}

TEST(Sampler, FractionsAreNeverBelowWhatIsAsked) {
  for (const double value : {1e-6, 0.3, 1.0, 1234.5678, 3.3e9, 2.5e14}) {
    const auto fraction = fraction_at_least(value);
    ASSERT_TRUE(fraction) << value;
    EXPECT_GE(fraction->value(), value);
    EXPECT_LE(fraction->value(), value + 1.0 / (1 << 20) + value * 1e-13 + (value > 5e8 ? 1 : 0));
    EXPECT_TRUE(discrete_gaussian(*fraction)) << value;
  }
  EXPECT_FALSE(fraction_at_least(0));
  EXPECT_FALSE(fraction_at_least(std::nan("")));
  EXPECT_FALSE(fraction_at_least(1e300));
}

TEST(Sampler, VariancesOutOfRangeAreRefused) {
  EXPECT_FALSE(discrete_gaussian({0, 1}));
  EXPECT_FALSE(discrete_gaussian({1, 0}));
  EXPECT_FALSE(discrete_gaussian({1ull << 50, 1}));
  EXPECT_FALSE(skellam({64, 1}));
  EXPECT_FALSE(skellam({1, 1ull << 30}));
}

// --gtest_also_run_disabled_tests --gtest_filter='*Speed*'
TEST(Sampler, DISABLED_Speed) {
  std::vector<std::int64_t> out(kDraws);
  const auto time = [&](const char* what, const IntegerSampler& sampler) {
    const auto source = secret_source();
    const auto start = std::chrono::steady_clock::now();
    ASSERT_TRUE(sampler.sample(*source, out));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%-32s %6.2f M draws/s\n", what, kDraws / took.count() / 1e6);
  };
  time("discrete Gaussian, σ = 1", **discrete_gaussian({1, 1}));
  time("discrete Gaussian, σ = 100", **discrete_gaussian({10000, 1}));
  time("discrete Gaussian, σ = 2^20", **discrete_gaussian({1ull << 49, 1u << 9}));
  time("Skellam, variance 1", **skellam({1, 1}));
  time("Skellam, variance 63", **skellam({63, 1}));
}

}  // namespace
}  // namespace preceptor::privacy
