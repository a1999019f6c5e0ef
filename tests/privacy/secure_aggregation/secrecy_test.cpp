#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdio>

#include "privacy/secure_aggregation/key_schedule.h"
#include "privacy/secure_aggregation/shamir.h"
#include "tests/privacy/secure_aggregation/cohort.h"
#include "tests/privacy/secure_aggregation/uniform.h"

/// I2 (masked words tell nothing) and I10 (secrets are wiped).
namespace preceptor::privacy {
namespace {

using namespace test;

std::vector<Input> worlds(const SessionContext& context, std::uint32_t fill) {
  auto inputs = random_inputs(context, context.attempt);  // an update is spent once masked
  std::ranges::fill(inputs[0].words, fill);
  return inputs;
}

TEST(MaskedWords, AreUniformWhateverTheyHide) {
  // All zeros and all ones, 100000 words. The 1 - 1e-6 quantile of chi-square with 255 degrees of freedom is
  // 374; with two worlds and four statistics a false alarm comes once in 10^5 runs.
  Consortium consortium(3);
  auto context = consortium.context(0, Suite::kX25519ChaCha20, 32, 100'000);
  for (const std::uint32_t fill : {0u, ~0u}) {
    ++context.attempt;
    Trial run{consortium, context, worlds(context, fill)};
    ASSERT_TRUE(run());
    EXPECT_LT(chi_square(run.masked[0].words), 374);
    auto serial = run.masked[0].words;  // neighbours' differences are uniform, too
    for (std::size_t i = serial.size() - 1; i > 0; --i) serial[i] -= serial[i - 1];
    EXPECT_LT(chi_square(serial), 374);
  }
}

TEST(MaskedWords, OfTwoWorldsCannotBeToldApart) {
  // A distinguisher that is right far more often than chance on plain words (the sign of the mean) sees masked
  // words of one world or the other, 200 sessions. Its hits are binomial(200, 1/2): within 100 ± 35 but for
  // 7e-7 of all runs.
  Consortium consortium(3);
  auto context = consortium.context(0, Suite::kX25519ChaCha20, 32, 64);
  int hits = 0;
  for (int session = 0; session < 200; ++session) {
    ++context.attempt;
    const bool ones = session % 2;
    Trial run{consortium, context, worlds(context, ones ? 0x7fffffffu - std::uint32_t(session) : 0x80000001u + std::uint32_t(session))};
    ASSERT_TRUE(run());
    double mean = 0;
    for (const auto word : run.masked[0].words) mean += double(std::int32_t(word));
    hits += (mean > 0) == ones;
  }
  EXPECT_NEAR(hits, 100, 35);
}

TEST(MaskedWords, KeepTheirMaskWhenOneShareLessThanTheThresholdIsKnown) {
  // Everything a coordinator with t - 1 shares of the seed can compute: any candidate secret is consistent
  // with some last share, so each guess of the seed explains the traffic but for the commitment, and the
  // interpolated one is not it.
  const auto secret = *Secret<32>::random();
  const auto shares = *share_secret(secret, 3, 5);
  std::vector<const Share*> two{&shares[0], &shares[1]};
  EXPECT_FALSE(interpolate(two, 0) == secret);
}

TEST(MaskKeys, DifferByPairVectorRingAndDirection) {
  const auto agreed = *Secret<32>::random();
  const auto group = sha256("group");
  const VectorSpec v{"update", 8, 32};
  const auto key = *pair_mask_key(agreed, group, 1, 2, v);
  EXPECT_TRUE(key == *pair_mask_key(agreed, group, 2, 1, v));
  EXPECT_FALSE(key == *pair_mask_key(agreed, group, 1, 3, v));
  EXPECT_FALSE(key == *pair_mask_key(agreed, group, 1, 2, {"totals", 8, 32}));
  EXPECT_FALSE(key == *pair_mask_key(agreed, group, 1, 2, {"update", 8, 20}));
  EXPECT_FALSE(*share_key(agreed, group, 1, 2) == *share_key(agreed, group, 2, 1));
  EXPECT_FALSE(key == *self_mask_key(agreed, group, 1, v));
}

/// How often 32 bytes occur in this process's writable memory. They are never put together here.
int occurrences(std::span<const std::byte> inverted) {
  int count = 0;
  std::FILE* maps = std::fopen("/proc/self/maps", "r");
  std::FILE* memory = std::fopen("/proc/self/mem", "r");
  if (memory) std::setvbuf(memory, nullptr, _IONBF, 0);  // a buffer would keep what was read
  std::vector<std::byte> region(64 << 20);  // never moved: what it leaves behind would be found
  const auto begin = std::bit_cast<unsigned long>(region.data()), end = begin + region.size();
  const auto matches = [&](const std::byte* p) {
    for (std::size_t k = 0; k < inverted.size(); ++k)
      if (p[k] != ~inverted[k]) return false;
    return true;
  };
  char line[512];
  while (maps && memory && std::fgets(line, sizeof line, maps)) {
    unsigned long from = 0, to = 0;
    char flags[5] = {};
    if (std::sscanf(line, "%lx-%lx %4s", &from, &to, flags) != 3 || flags[0] != 'r' || flags[1] != 'w') continue;
    if (to - from > region.size()) continue;
    if (std::fseek(memory, long(from), SEEK_SET) != 0) continue;
    const auto got = std::fread(region.data(), 1, to - from, memory);
    for (std::size_t i = 0; i + inverted.size() <= got; ++i)
      if (matches(&region[i]) && (from + i < begin || from + i >= end)) ++count;
  }
  OPENSSL_cleanse(region.data(), region.size());
  if (maps) std::fclose(maps);
  if (memory) std::fclose(memory);
  return count;
}

TEST(Secrets, AreGoneFromMemoryWhenTheSessionIsOver) {
  // The canary is the party's own seed, read out of its stored state and kept inverted.
  Consortium consortium(3);
  const auto context = consortium.context();
  auto party = std::make_unique<Party>(*Party::create(context, Policy{3, 0}, consortium.names[0], consortium.signers[0],
                                                      *consortium.roster, consortium.spent[0]));
  Bytes canary(32);
  {
    auto stored = party->store();
    const WipeLater wipe(stored);
    Bytes head;
    ByteWriter out(head);
    out.put(std::uint8_t(2));
    encode(out, context);
    for (std::size_t i = 0; i < 32; ++i) canary[i] = ~stored[head.size() + 1 + i];
  }
  EXPECT_GE(occurrences(canary), 1) << "the scan must find a secret that is there";
  party->finish();
  EXPECT_EQ(occurrences(canary), 0);
}

}  // namespace
}  // namespace preceptor::privacy
