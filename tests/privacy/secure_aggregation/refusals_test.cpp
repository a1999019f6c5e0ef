#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "privacy/secure_aggregation/key_schedule.h"
#include "tests/privacy/secure_aggregation/cohort.h"

/// Each rule of F17 (bad shares) and F19 (malicious coordinator) is refused by name, by the party itself.
namespace preceptor::privacy {
namespace {

using namespace test;
using testing::HasSubstr;

/// Five parties and their true coordinator, stopped before any step, so that a message can be forged.
class Refusals : public testing::Test {
 protected:
  Refusals() : consortium(5), context(consortium.context(1)), aggregation(*Aggregation::create(context, *consortium.roster)) {
    for (std::size_t i = 0; i < 5; ++i)
      parties.push_back(*Party::create(context, Policy{3, 1}, consortium.names[i], consortium.signers[i], *consortium.roster,
                                       consortium.spent[i]));
    for (Member m = 1; m <= 5; ++m) EXPECT_TRUE(aggregation.hear(m, party(m).advertise()));
    roll = message<Roll>(aggregation.close_roll()->front().envelope);
  }
  Party& party(Member m) { return parties[m - 1u]; }
  template <class T>
  static T message(std::span<const std::byte> bytes) {
    return std::get<T>(std::move(decode_envelope(bytes)->message));
  }
  Bytes sealed(SecureMessage m) const { return encode(context.digest(), m); }
  /// What a party says against a message; "": it takes it.
  std::string refusal(Member m, SecureMessage message) {
    const auto answer = party(m).hear(sealed(std::move(message)));
    return answer ? "" : answer.error().message;
  }
  Roll copy_of_roll() const { return message<Roll>(encode(context.digest(), roll)); }

  /// Goes on honestly until everybody has masked.
  void share() {
    for (Member m = 1; m <= 5; ++m) EXPECT_TRUE(aggregation.hear(m, *party(m).hear(sealed(copy_of_roll()))));
    boxes = *aggregation.close_shares();
  }
  void mask() {
    share();
    for (auto& [to, box] : boxes) EXPECT_TRUE(party(to).hear(box));
    for (Member m = 1; m <= 5; ++m) {
      auto input = random_input(context, m);
      EXPECT_TRUE(party(m).mask(input.vectors()));
      EXPECT_TRUE(aggregation.joined(m));
    }
  }

  Consortium consortium;
  SessionContext context;
  Aggregation aggregation;
  std::vector<Party> parties;
  Roll roll;
  Aggregation::Posts boxes;
};

std::string refusal_of(Result<Party> made) { return made ? "" : made.error().message; }

TEST(Invitations, AreRefusedByEachRule) {
  Consortium consortium(5);
  const auto offer = [&](auto change, Policy policy = {3, 1}, const char* name = "hospital-002") {
    auto context = consortium.context(1);
    change(context);
    SpentUpdates spent;
    return refusal_of(Party::create(context, policy, name, consortium.signers[1], *consortium.roster, spent));
  };
  EXPECT_EQ(offer([](auto&) {}), "");
  EXPECT_THAT(offer([](auto& c) { c.k_min = 2; }), HasSubstr("no less than 3"));
  EXPECT_THAT(offer([](auto& c) { c.k_min = 6; }), HasSubstr("fewer than k_min"));
  EXPECT_THAT(offer([](auto&) {}, Policy{4, 1}), HasSubstr("below this node's floor of 4"));
  EXPECT_THAT(offer([](auto&) {}, Policy{3, 2}), HasSubstr("this node wants 2"));
  EXPECT_THAT(offer([](auto& c) { --c.threshold; }), HasSubstr("it must be 4"));
  EXPECT_THAT(offer([](auto& c) { ++c.threshold; }), HasSubstr("it must be 4"));
  EXPECT_THAT(offer([](auto& c) { c.colluders = 200; c.threshold = threshold_of(5, 200); }), HasSubstr("threshold 103 of 5"));
  EXPECT_THAT(offer([](auto& c) { c.roster = sha256("forged"); }), HasSubstr("another roster"));
  EXPECT_THAT(offer([](auto& c) { c.members[1] = c.members[0]; }), HasSubstr("not sorted and distinct"));
  EXPECT_THAT(offer([](auto& c) { c.suite = Suite(3); }), HasSubstr("unknown suite"));
  EXPECT_THAT(offer([](auto& c) { c.vectors.clear(); }), HasSubstr("nothing to sum"));
  EXPECT_THAT(offer([](auto& c) { c.vectors[0].bits = 33; }), HasSubstr("33 bits"));
  EXPECT_THAT(offer([](auto& c) { c.vectors[1].name = "update"; }), HasSubstr("two vectors"));
  EXPECT_THAT(offer([](auto&) {}, Policy{3, 1}, "stranger"), HasSubstr("not a member"));
}

TEST(Invitations, NeverOpenASessionTwice) {
  Consortium consortium(3);
  auto context = consortium.context();
  const auto join = [&] {
    return refusal_of(Party::create(context, Policy{3, 0}, consortium.names[0], consortium.signers[0], *consortium.roster, consortium.spent[0]));
  };
  EXPECT_EQ(join(), "");
  context.model = sha256("another model for the same attempt");
  EXPECT_THAT(join(), HasSubstr("session reuse"));
  consortium.spent[0] = *SpentUpdates::restore(consortium.spent[0].store());
  EXPECT_THAT(join(), HasSubstr("session reuse")) << "after a restart, too";
}

TEST(Updates, AreSpentOnceMasked) {
  Consortium consortium(3);
  auto context = consortium.context();
  const auto inputs = random_inputs(context, 1);
  Trial first{consortium, context, inputs};
  ASSERT_TRUE(first());
  ++context.attempt;
  Trial again{consortium, context, inputs};
  const auto outcome = again();
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().message, HasSubstr("spent once masked"));
}

TEST_F(Refusals, ForgedRollsAreNamed) {
  const auto with = [&](auto change) {
    auto forged = copy_of_roll();
    change(forged.entries);
    return refusal(1, std::move(forged));
  };
  EXPECT_THAT(with([](auto& e) { e.erase(e.begin()); }), HasSubstr("leaves this node's own key out"));
  EXPECT_THAT(with([](auto& e) { e.resize(3); }), HasSubstr("3 members advertised; 4 are needed"));
  EXPECT_THAT(with([](auto& e) { e[2] = e[1]; }), HasSubstr("twice or out of order"));
  EXPECT_THAT(with([](auto& e) { e[2].member = 9; }), HasSubstr("unknown member 9"));
  EXPECT_THAT(with([](auto& e) { e[2].advertisement.mask_key[0] ^= std::byte{1}; }), HasSubstr("hospital-003: signature does not verify"));
  EXPECT_THAT(with([](auto& e) { e[2].advertisement.signature.clear(); }), HasSubstr("signature does not verify"));
  EXPECT_THAT(with([](auto& e) { e[2].advertisement = e[3].advertisement; }), HasSubstr("hospital-003: a foreign key"));
  EXPECT_EQ(refusal(1, copy_of_roll()), "") << "the true roll is still welcome";
  EXPECT_THAT(with([](auto& e) { e.pop_back(); }), HasSubstr("equivocation: a second, different Roll"));
}

TEST_F(Refusals, AKeyListedTwiceIsNamedThoughItsOwnerSignedIt) {
  auto forged = copy_of_roll();
  auto& a = forged.entries[1].advertisement;
  a.mask_key = a.cipher_key;
  a.signature = *consortium.signers[1].sign(advertisement_statement(context.digest(), consortium.names[1], a));
  EXPECT_THAT(refusal(1, std::move(forged)), HasSubstr("hospital-002: a key that is listed twice"));
}

TEST_F(Refusals, AnOwnKeyThatWasChangedIsNoticedThoughTheSignatureIsTrue) {
  // Signed by this very node, in another run of the same session: a replay.
  auto forged = copy_of_roll();
  auto& own = forged.entries[0].advertisement;
  own.commitment = sha256("of another run");
  own.signature = *consortium.signers[0].sign(advertisement_statement(context.digest(), consortium.names[0], own));
  EXPECT_THAT(refusal(1, std::move(forged)), HasSubstr("changed this node's own key"));
}

TEST_F(Refusals, PointsOfLowOrderAreNamed) {
  auto forged = copy_of_roll();
  auto& a = forged.entries[1].advertisement;
  a.cipher_key.assign(32, std::byte{0});
  a.signature = *consortium.signers[1].sign(advertisement_statement(context.digest(), consortium.names[1], a));
  EXPECT_THAT(refusal(1, std::move(forged)), HasSubstr("hospital-002: a public key that allows no agreement"));
}

TEST_F(Refusals, SharesThatWereTamperedWithAreNamed) {
  share();
  const auto with = [&](auto change) {
    auto forged = message<Shares>(boxes[0].envelope);
    change(forged.entries);
    return refusal(1, std::move(forged));
  };
  EXPECT_THAT(with([](auto& e) { e[0].sealed[3] ^= std::byte{1}; }), HasSubstr("shares of hospital-002: sealed bytes do not authenticate"));
  EXPECT_THAT(with([](auto& e) { e[0].sealed.back() ^= std::byte{1}; }), HasSubstr("do not authenticate"));
  EXPECT_THAT(with([](auto& e) { std::swap(e[0].sealed, e[1].sealed); }), HasSubstr("do not authenticate")) << "of the wrong peer";
  EXPECT_THAT(with([](auto& e) { e[1] = e[0]; }), HasSubstr("twice"));
  EXPECT_THAT(with([](auto& e) { e[0].peer = 1; }), HasSubstr("not on the roll"));
  EXPECT_THAT(with([](auto& e) { e[0].peer = 0; }), HasSubstr("not on the roll"));
  EXPECT_THAT(with([](auto& e) { e.resize(2); }), HasSubstr("3 members shared; 4 are needed"));
}

TEST_F(Refusals, SurvivorsAreJudgedByFcpsFiveRulesAndMore) {
  mask();
  const auto say = [&](std::vector<Member> alive, std::vector<Member> dead) { return refusal(1, Survivors{std::move(alive), std::move(dead)}); };
  EXPECT_THAT(say({2, 3, 4, 5}, {1}), HasSubstr("this node is listed as dead"));
  EXPECT_THAT(say({1, 2, 3, 4, 9}, {5}), HasSubstr("unknown member 9"));
  EXPECT_THAT(say({1, 2, 3, 4, 5}, {5}), HasSubstr("both kinds of share are never given"));
  EXPECT_THAT(say({1, 2, 2, 3, 4}, {5}), HasSubstr("twice"));
  EXPECT_THAT(say({1, 2, 3}, {4, 5}), HasSubstr("3 survivors; 4 are needed"));
  EXPECT_THAT(say({1, 2, 3, 4}, {}), HasSubstr("4 of 5 members"));
  EXPECT_THAT(say({2, 1, 3, 4, 5}, {}), HasSubstr("out of order"));
  EXPECT_EQ(say({1, 2, 3, 4}, {5}), "");
  EXPECT_THAT(say({1, 2, 3, 4, 5}, {}), HasSubstr("equivocation"));
}

TEST(Survivors, WhoNeverSharedIsDeadAlready) {
  Consortium consortium(5);
  const auto context = consortium.context(1);
  Trial run{consortium, context, random_inputs(context, 1)};
  run.silent_from = {kNever, kNever, kNever, kNever, kBeforeShare};
  ASSERT_TRUE(run());
  // Replayed by hand for one party: the fifth advertised and never shared.
  std::vector<Party> parties;
  Consortium fresh(5);
  auto aggregation = *Aggregation::create(fresh.context(1), *fresh.roster);
  for (Member m = 1; m <= 5; ++m) {
    parties.push_back(*Party::create(fresh.context(1), Policy{3, 0}, fresh.names[m - 1u], fresh.signers[m - 1u], *fresh.roster, fresh.spent[m - 1u]));
    ASSERT_TRUE(aggregation.hear(m, parties.back().advertise()));
  }
  const auto rolls = *aggregation.close_roll();
  for (const auto& [to, envelope] : rolls)
    if (to != 5) {
      ASSERT_TRUE(aggregation.hear(to, *parties[to - 1u].hear(envelope)));
    }
  const auto boxes = *aggregation.close_shares();
  ASSERT_TRUE(parties[0].hear(boxes[0].envelope));
  auto input = random_input(context, 1);
  ASSERT_TRUE(parties[0].mask(input.vectors()));
  const auto said = parties[0].hear(encode(fresh.context(1).digest(), Survivors{{1, 2, 3, 4}, {5}}));
  ASSERT_FALSE(said);
  EXPECT_THAT(said.error().message, HasSubstr("hospital-005 was dead already"));
}

TEST_F(Refusals, BothKindsOfShareNeverLeaveAcrossRestartsEither) {
  mask();
  ASSERT_EQ(refusal(1, Survivors{{1, 2, 3, 4}, {5}}), "");
  parties[0] = *Party::restore(parties[0].store(), consortium.signers[0], *consortium.roster, consortium.spent[0]);
  EXPECT_THAT(refusal(1, Survivors{{1, 2, 3, 4, 5}, {}}), HasSubstr("equivocation"));
}

TEST_F(Refusals, ConfirmationsMustBeOfTAliveMembersOverTheSameSet) {
  mask();
  const auto posts = *aggregation.close_survivors();
  Confirmations honest;
  for (auto& [to, envelope] : posts) honest.entries.push_back({to, message<Confirmation>(*party(to).hear(envelope))});
  const auto with = [&](auto change) {
    auto forged = honest;
    change(forged.entries);
    return refusal(1, std::move(forged));
  };
  EXPECT_THAT(with([](auto& e) { e.resize(3); }), HasSubstr("3 confirmed the survivors; 4 are needed"));
  EXPECT_THAT(with([](auto& e) { e[1] = e[0]; }), HasSubstr("twice"));
  EXPECT_THAT(with([](auto& e) { e[1].confirmation = e[2].confirmation; }), HasSubstr("signature does not verify"));
  EXPECT_THAT(with([](auto& e) { e[1].member = 7; }), HasSubstr("who is no survivor"));
  // A signature over another set: what a coordinator collects that tells each node another story.
  EXPECT_THAT(with([&](auto& e) {
                e[1].confirmation.signature = *consortium.signers[1].sign(survivors_statement(sha256("another group"), Survivors{{1, 2, 3, 4, 5}, {}}, false));
              }), HasSubstr("signature does not verify"));
  EXPECT_THAT(with([](auto& e) { e[1].confirmation.recomputed = true; }), HasSubstr("signature does not verify"));
  EXPECT_EQ(with([](auto&) {}), "");
}

TEST_F(Refusals, StepsOutOfOrderAndForeignSessionsAreNamed) {
  EXPECT_THAT(refusal(1, Shares{}), HasSubstr("shares before the roll"));
  EXPECT_THAT(refusal(1, Survivors{{1, 2, 3, 4, 5}, {}}), HasSubstr("before this node's masked words"));
  EXPECT_THAT(refusal(1, Confirmations{}), HasSubstr("confirmations before survivors"));
  EXPECT_THAT(refusal(1, Unmask{}), HasSubstr("only nodes send"));
  const auto foreign = party(1).hear(encode(sha256("another context"), copy_of_roll()));
  EXPECT_THAT(foreign.error().message, HasSubstr("Roll of another context"));
  party(1).finish();
  EXPECT_THAT(refusal(1, copy_of_roll()), HasSubstr("is over"));
}

TEST_F(Refusals, TheCoordinatorNamesNodesThatLie) {
  const auto hears = [&](Member m, SecureMessage said) {
    const auto heard = aggregation.hear(m, sealed(std::move(said)));
    return heard ? "" : heard.error().message;
  };
  EXPECT_THAT(hears(1, Survivors{}), HasSubstr("only the coordinator"));
  EXPECT_THAT(hears(9, Shares{}), HasSubstr("unknown member"));
  EXPECT_THAT(hears(1, Shares{}), HasSubstr("0 shares for 4 peers"));
  EXPECT_THAT(hears(1, Unmask{}), HasSubstr("too early"));
  auto shares = message<Shares>(*party(1).hear(sealed(copy_of_roll())));
  auto doubled = shares;
  doubled.entries[1] = doubled.entries[0];
  EXPECT_THAT(hears(1, doubled), HasSubstr("two shares for member"));
  EXPECT_EQ(hears(1, shares), "");
  EXPECT_THAT(hears(1, doubled), HasSubstr("equivocation"));
}

TEST(BadShares, OfAFewAreGotAroundAndNamed) {
  Consortium consortium(7);
  const auto context = consortium.context(0);  // t = 4: three of seven may lie
  Trial run{consortium, context, random_inputs(context, 1)};
  run.tamper = [&](Member member, Bytes& bytes) {
    auto envelope = *decode_envelope(bytes);
    auto* unmask = std::get_if<Unmask>(&envelope.message);
    if (!unmask || (member != 2 && member != 5)) return;
    for (auto& entry : unmask->entries) entry.share.bytes()[0] ^= std::byte{1};
    bytes = encode(envelope.session, envelope.message);
  };
  const auto outcome = run();
  ASSERT_TRUE(outcome) << outcome.error().message;
  EXPECT_EQ(outcome->sum, run.plain());
  EXPECT_THAT(run.liars, testing::UnorderedElementsAre(testing::Key(2), testing::Key(5)));
}

TEST(BadShares, OfTooManyAreAnErrorAndNeverAWrongSum) {
  Consortium consortium(5);
  const auto context = consortium.context(0);  // t = 3
  Trial run{consortium, context, random_inputs(context, 1)};
  run.tamper = [&](Member member, Bytes& bytes) {
    auto envelope = *decode_envelope(bytes);
    auto* unmask = std::get_if<Unmask>(&envelope.message);
    if (!unmask || member > 3) return;
    unmask->entries[0].share.bytes()[31] ^= std::byte(member * member + 6);  // lies that lie on no line through zero
    bytes = encode(envelope.session, envelope.message);
  };
  const auto outcome = run();
  ASSERT_FALSE(outcome);
  EXPECT_THAT(outcome.error().message, HasSubstr("make up what hospital-001 advertised"));
}

}  // namespace
}  // namespace preceptor::privacy
