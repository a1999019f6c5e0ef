#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "tests/privacy/secure_aggregation/cohort.h"

/// Invariants of security.md §2: I1 exact sums, I3 no mask key twice, I7 same bytes after a crash, I9 order.
namespace preceptor::privacy {
namespace {

using namespace test;

TEST(SecureAggregation, ThreeHospitalsToySum) {
  Consortium consortium(3);
  const auto context = consortium.context(0, Suite::kX25519ChaCha20, 32, 3);
  Trial run{consortium, context, {}};
  run.inputs = {{{100, 200, 300}, {1, 2, 3}}, {{10, 20, 30}, {10, 20, 30}}, {{1, 2, 3}, {100, 200, 300}}};
  const auto outcome = run();
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->sum.words, (std::vector<std::uint32_t>{111, 222, 333}));
  EXPECT_EQ(outcome->sum.totals, (std::vector<std::uint64_t>{111, 222, 333}));
  EXPECT_NE(run.masked[0].words, run.inputs[0].words);
}

TEST(SecureAggregation, SumIsExactForEverySurvivorSetAtEveryPhaseUpToSixMembers) {
  for (int n = 3; n <= 6; ++n) {
    Consortium consortium(n);
    auto context = consortium.context(0, Suite::kX25519ChaCha20, 20, 8);
    const int fewest = std::max(context.k_min, context.threshold);
    for (int silent = 0; silent < 1 << n; ++silent)
      for (const auto step : {kBeforeAdvertise, kBeforeShare, kBeforeWords, kBeforeConfirm, kBeforeUnmask}) {
        ++context.attempt;
        Trial run{consortium, context, random_inputs(context, context.attempt)};
        run.silent_from.assign(std::size_t(n), kNever);
        for (int i = 0; i < n; ++i)
          if (silent >> i & 1) run.silent_from[std::size_t(i)] = step;
        const int left = n - __builtin_popcount(unsigned(silent));
        // From the words on, k_min members are in the sum; t of them must still answer.
        const bool opens = left >= (step >= kBeforeConfirm ? context.threshold : fewest);
        const auto outcome = run();
        ASSERT_EQ(outcome.has_value(), opens) << n << " " << silent << " " << step << " " << (outcome ? "" : outcome.error().message);
        if (opens) {
          ASSERT_EQ(outcome->sum, run.plain()) << n << " " << silent << " " << step;
        }
      }
  }
}

RC_GTEST_PROP(SecureAggregation, SumIsExactOrThereIsNone, ()) {
  const int n = *rc::gen::inRange(3, 13);
  const int f = *rc::gen::inRange(0, std::max(1, n / 3));
  const auto suite = *rc::gen::element(Suite::kX25519ChaCha20, Suite::kP256Aes256);
  const int bits = *rc::gen::element(8, 20, 31, 32);
  Consortium consortium(n);
  auto context = consortium.context(f, suite, bits, std::uint64_t(*rc::gen::inRange(1, 5000)));
  Trial run{consortium, context, random_inputs(context, *rc::gen::arbitrary<std::uint32_t>())};
  for (int i = 0; i < n; ++i)
    run.silent_from.push_back(*rc::gen::weightedElement<int>({{8, kNever}, {1, 0}, {1, 1}, {1, 2}, {1, 3}, {1, 4}}));
  run.restart = *rc::gen::arbitrary<bool>();
  run.order = *rc::gen::arbitrary<std::uint32_t>();
  const auto outcome = run();
  const int fewest = std::max(context.k_min, context.threshold);
  const bool opens = run.past(kBeforeWords) >= fewest && run.past(kBeforeUnmask) >= context.threshold;
  RC_ASSERT(outcome.has_value() == opens);
  if (opens) RC_ASSERT(outcome->sum == run.plain());
}

TEST(SecureAggregation, ThirtyTwoMembersOfWhomTwelveFallSilent) {
  Consortium consortium(32);
  const auto context = consortium.context(6);
  ASSERT_EQ(context.threshold, 20);
  RandomStream random(3, "drop");
  Trial run{consortium, context, random_inputs(context, 5)};
  run.silent_from.assign(32, kNever);
  const auto order = random.permutation(32);
  for (int i = 0; i < 12; ++i) run.silent_from[order[std::size_t(i)]] = int(random.below(5));
  const auto outcome = run();
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->sum, run.plain());
}

TEST(SecureAggregation, SumIsExactOrThereIsNoneUpToThirtyTwoMembers) {
  RandomStream random(4, "large cohorts");
  int opened = 0;
  for (int round = 0; round < 12; ++round) {
    const int n = 13 + int(random.below(20)), f = int(random.below(std::uint64_t(n / 5) + 1));
    Consortium consortium(n);
    const auto context = consortium.context(f, round % 2 ? Suite::kP256Aes256 : Suite::kX25519ChaCha20, 20, 16);
    Trial run{consortium, context, random_inputs(context, std::uint64_t(round))};
    for (int i = 0; i < n; ++i) run.silent_from.push_back(random.below(4) == 0 ? int(random.below(5)) : kNever);
    run.order = random.bits64();
    const auto outcome = run();
    const bool opens = run.past(kBeforeWords) >= std::max(context.k_min, context.threshold) && run.past(kBeforeUnmask) >= context.threshold;
    ASSERT_EQ(outcome.has_value(), opens) << n << " members, f = " << f;
    if (!opens) continue;
    ASSERT_EQ(outcome->sum, run.plain()) << n << " members, f = " << f;
    ++opened;
  }
  EXPECT_GE(opened, 4);
  EXPECT_LT(opened, 12) << "some were too few";
}

TEST(SecureAggregation, ThresholdsAreThoseOfTheTable) {
  const int rows[][3] = {{3, 0, 2}, {5, 1, 4}, {8, 2, 6}, {10, 2, 7}, {16, 3, 10}, {20, 4, 13}, {32, 6, 20}};
  for (const auto& [n, f, t] : rows) {
    EXPECT_EQ(threshold_of(n, f), t);
    EXPECT_GT(2 * t, n + f) << "a coordinator with f colluders never holds t of both kinds";
  }
}

TEST(SecureAggregation, OrderOfArrivalsAndCrashesDoNotChangeTheSum) {
  Consortium consortium(5);
  auto context = consortium.context(1);
  const auto inputs = random_inputs(context, 8);
  std::optional<Input> first;
  for (std::uint64_t order = 0; order < 6; ++order) {
    ++context.attempt;
    consortium.spent = std::vector<SpentUpdates>(5);
    Trial run{consortium, context, inputs};
    run.order = order;
    run.restart = order % 2 == 1;
    const auto outcome = run();
    ASSERT_TRUE(outcome) << outcome.error().message;
    if (!first) first = outcome->sum;
    EXPECT_EQ(outcome->sum, *first);
  }
}

std::map<Bytes, int>* g_keys = nullptr;
void note_key(const Secret<32>& key) { ++(*g_keys)[Bytes(key.view().begin(), key.view().end())]; }

TEST(SecureAggregation, NoMaskKeyIsUsedTwiceByOneMember) {
  // Over several sessions, suites and vectors: a key appears once at each end of a pair, and once or
  // twice more at the coordinator. Parties and coordinator are told apart by running without dropouts:
  // pair keys are then used by the two parties alone, own keys by the party and the coordinator.
  std::map<Bytes, int> keys;
  g_keys = &keys;
  MaskSet::probe = note_key;
  constexpr int kSessions = 4, kMembers = 5, kVectors = 2;
  Consortium consortium(kMembers);
  for (int s = 0; s < kSessions; ++s) {
    auto context = consortium.context(1, s % 2 ? Suite::kP256Aes256 : Suite::kX25519ChaCha20);
    context.attempt = std::uint32_t(s);
    Trial run{consortium, context, random_inputs(context, std::uint64_t(s))};
    ASSERT_TRUE(run());
  }
  MaskSet::probe = nullptr;
  EXPECT_EQ(keys.size(), std::size_t(kSessions * kVectors * (kMembers * (kMembers - 1) / 2 + kMembers)));
  for (const auto& [key, count] : keys) EXPECT_EQ(count, 2);
}

TEST(SecureAggregation, AModelShownToOneMemberAloneMakesTheSumNoise) {
  // What Aggregation and Party refuse by the digest is also true of the masks themselves: one member
  // whose transcript differs leaves a sum in which no word is right.
  Consortium consortium(3);
  const auto context = consortium.context(0, Suite::kX25519ChaCha20, 32, 1000);
  auto other = context;
  other.model = sha256("a model for you alone");
  std::vector<Party> parties;
  for (std::size_t i = 0; i < 3; ++i)
    parties.push_back(*Party::create(i == 2 ? other : context, Policy{3, 0}, consortium.names[i], consortium.signers[i],
                                     *consortium.roster, consortium.spent[i]));
  auto aggregation = *Aggregation::create(context, *consortium.roster);
  const auto heard = aggregation.hear(3, parties[2].advertise());
  ASSERT_FALSE(heard);
  EXPECT_THAT(heard.error().message, testing::HasSubstr("another context"));
}

}  // namespace
}  // namespace preceptor::privacy
