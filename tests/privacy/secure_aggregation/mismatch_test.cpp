#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <bit>

#include "privacy/secure_aggregation/key_schedule.h"
#include "tests/privacy/secure_aggregation/cohort.h"
#include "tests/privacy/secure_aggregation/uniform.h"

/// I5: members who were shown different contexts. Nobody accepts, and were every check of theirs gone, the sum
/// would still be noise.
namespace preceptor::privacy {
namespace {

using namespace test;
using testing::HasSubstr;

struct Field {
  const char* name;
  void (*change)(SessionContext&);
};
/// All that the members of a session must agree on.
const Field kFields[] = {
    {"job", [](auto& c) { c.job = "another"; }},
    {"round", [](auto& c) { ++c.round; }},
    {"attempt", [](auto& c) { ++c.attempt; }},
    {"model", [](auto& c) { c.model = sha256("crafted for one"); }},
    {"architecture", [](auto& c) { c.architecture = sha256("another"); }},
    {"plan", [](auto& c) { c.plan = sha256("of another first model"); }},
    {"k_min", [](auto& c) { ++c.k_min; }},
    {"recomputed", [](auto& c) { c.recomputed = !c.recomputed; }},
    {"vectors", [](auto& c) { c.vectors[1].name = "other totals"; }},
};

/// A party is not even made for another roster than its own; of another suite, keys have another size.
const Field kEarly[] = {
    {"roster", [](auto& c) { c.roster = sha256("another"); }},
    {"suite", [](auto& c) { c.suite = Suite::kP256Aes256; }},
};

/// What a coordinator that holds every hospital's signing key shows a member: the others' advertisements, signed over
/// the member's own context.
Roll forged_roll(const Consortium& consortium, const SessionContext& context, const std::vector<Advertisement>& all) {
  Roll roll;
  for (Member m = 1; m <= all.size(); ++m) {
    auto a = all[m - 1u];
    const auto& signer = consortium.signers[m - 1u];
    a.signature = *signer.sign(advertisement_statement(context.digest(), context.name(m), a));
    roll.entries.push_back({m, std::move(a)});
  }
  return roll;
}

class Mismatch : public testing::TestWithParam<Field> {};

TEST_P(Mismatch, EndsAtTheSignaturesOnTheRoll) {
  Consortium consortium(5);
  std::vector<SessionContext> contexts(5, consortium.context(1));
  GetParam().change(contexts[2]);
  std::vector<Party> parties;
  Roll roll;
  for (Member m = 1; m <= 5; ++m) {
    const auto i = m - 1u;
    parties.push_back(*Party::create(contexts[i], {3, 1}, consortium.names[i], consortium.signers[i], *consortium.roster, consortium.spent[i]));
    roll.entries.push_back({m, std::get<Advertisement>(decode_envelope(parties.back().advertise())->message)});
  }
  for (std::size_t i = 0; i < 5; ++i) {
    const auto said = parties[i].hear(encode(contexts[i].digest(), roll));
    ASSERT_FALSE(said);
    EXPECT_THAT(said.error().message, HasSubstr("signature does not verify"));
  }
}

TEST_P(Mismatch, EndsAtTheSharesThoughEverySigningKeyIsStolen) {
  Consortium consortium(5);
  std::vector<SessionContext> contexts(5, consortium.context(1));
  GetParam().change(contexts[2]);
  std::vector<Party> parties;
  std::vector<Advertisement> all;
  for (std::size_t i = 0; i < 5; ++i) {
    parties.push_back(*Party::create(contexts[i], {3, 1}, consortium.names[i], consortium.signers[i], *consortium.roster, consortium.spent[i]));
    all.push_back(std::get<Advertisement>(decode_envelope(parties.back().advertise())->message));
  }
  std::vector<Shares> boxes(5);  // by receiver
  for (Member m = 1; m <= 5; ++m) {
    const auto& context = contexts[m - 1u];
    auto said = parties[m - 1u].hear(encode(context.digest(), forged_roll(consortium, context, all)));
    ASSERT_TRUE(said) << said.error().message;
    const auto envelope = *decode_envelope(*said);
    for (auto& [peer, sealed] : std::get<Shares>(envelope.message).entries) boxes[peer - 1u].entries.push_back({m, sealed});
  }
  for (std::size_t i = 0; i < 5; ++i) {
    const auto said = parties[i].hear(encode(contexts[i].digest(), std::move(boxes[i])));
    ASSERT_FALSE(said) << consortium.names[i];
    EXPECT_THAT(said.error().message, HasSubstr("do not authenticate"));
    EXPECT_FALSE(parties[i].ready());
  }
}

/// The sum of everybody's masks, less what the coordinator takes off with all seeds known: zero where they cancel.
std::vector<std::uint32_t> left_over(const std::vector<SessionContext>& contexts, std::uint64_t words) {
  const auto n = contexts.size();
  std::vector<AgreementKey> keys;
  std::vector<Secret<32>> seeds;
  Roll roll;
  std::vector<Member> everybody;
  for (Member m = 1; m <= n; ++m) {
    keys.push_back(*AgreementKey::generate(Suite::kX25519ChaCha20));
    seeds.push_back(*Secret<32>::random());
    roll.entries.push_back({m, {Bytes(32, std::byte(m)), keys.back().public_key(), {}, {}, {}}});
    everybody.push_back(m);
  }
  std::vector<std::uint32_t> sum(words);
  const auto group = [&](const SessionContext& context) { return group_of(transcript_of(context.digest(), roll), everybody); };
  const VectorSpec v{"update", words, 32};
  for (Member m = 1; m <= n; ++m) {
    const auto own = group(contexts[m - 1u]);
    MaskSet masks;
    EXPECT_TRUE(masks.add(Suite::kX25519ChaCha20, *self_mask_key(seeds[m - 1u], own, m, v), false));
    for (Member peer = 1; peer <= n; ++peer) {
      if (peer == m) continue;
      const auto agreed = *keys[m - 1u].agree(keys[peer - 1u].public_key());
      EXPECT_TRUE(masks.add(Suite::kX25519ChaCha20, *pair_mask_key(agreed, own, m, peer, v), m < peer));
    }
    // The coordinator's way out, in its own context.
    EXPECT_TRUE(masks.add(Suite::kX25519ChaCha20, *self_mask_key(seeds[m - 1u], group(contexts[0]), m, v), true));
    EXPECT_TRUE(masks.fold(0, std::span(sum), 32));
  }
  return sum;
}

TEST(Masks, CancelAmongMembersOfOneContext) {
  const Consortium consortium(5);
  const auto sum = left_over(std::vector(5, consortium.context(1)), 1000);
  EXPECT_EQ(std::ranges::count(sum, 0u), 1000);
}

class MismatchOfMasks : public testing::TestWithParam<Field> {};
TEST_P(MismatchOfMasks, LeavesNoiseWereThereNoCheckAtAll) {
  // 20000 words: each is right by chance with 2^-32. The bound on chi-square is its 1 - 1e-6 quantile (255 degrees of freedom).
  const Consortium consortium(5);
  std::vector contexts(5, consortium.context(1));
  GetParam().change(contexts[2]);
  const auto sum = left_over(contexts, 20'000);
  EXPECT_EQ(std::ranges::count(sum, 0u), 0);
  EXPECT_LT(chi_square(sum), 374);
}

std::string name_of(const testing::TestParamInfo<Field>& instance) { return instance.param.name; }
INSTANTIATE_TEST_SUITE_P(Of, Mismatch, testing::ValuesIn(kFields), name_of);
INSTANTIATE_TEST_SUITE_P(Of, MismatchOfMasks, testing::ValuesIn(kFields), name_of);
INSTANTIATE_TEST_SUITE_P(OfEarly, MismatchOfMasks, testing::ValuesIn(kEarly), name_of);

/// Who opens a sum: members that made the model themselves, and others if more than f of those signed that they did.
RC_GTEST_PROP(Vouching, NobodyOpensASumOfAModelThatTooFewMade, ()) {
  const auto n = *rc::gen::inRange(3, 9);
  const auto f = *rc::gen::inRange(0, 3);
  if (threshold_of(n, f) > n) return;
  Consortium consortium(n);
  auto context = consortium.context(f);
  context.recomputed = true;
  const auto bits = *rc::gen::inRange(0, 1 << n);
  std::vector<bool> makers;
  for (int m = 0; m < n; ++m) makers.push_back(bits >> m & 1);
  const auto made = std::popcount(unsigned(bits));
  Trial trial{.consortium = consortium, .context = context, .inputs = random_inputs(context, 1), .makers = makers};
  const auto outcome = trial();
  if (made == n || made > f) {
    RC_ASSERT(bool(outcome));
    RC_ASSERT(outcome->sum == trial.plain());
  } else {
    RC_ASSERT(!outcome);
    RC_ASSERT(outcome.error().message.find(fmt::format("{} others did; more than {} are needed", made, f)) != std::string::npos);
  }
}

}  // namespace
}  // namespace preceptor::privacy
