#include "tests/coordinator/round_fixture.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;
using namespace test;

TEST_F(RoundTest, InvitesTheWholeCohortWithTheTimeThatIsLeft) {
  const auto round = round_of({{"a", 10}, {"b", 20}});
  const auto sends = round.invite(start + 30s);
  ASSERT_THAT(sends, SizeIs(2));
  const auto invitation = sent<RoundStart>(sends, "b").at(0);
  EXPECT_EQ(invitation.round, 3u);
  EXPECT_EQ(invitation.model, model);
  EXPECT_EQ(invitation.model_bytes, 1234u);
  EXPECT_EQ(invitation.architecture, space.architecture_hash());
  EXPECT_EQ(invitation.deadline_ms, 70'000u);
  EXPECT_EQ(sent<RoundStart>(round.invite("a", end + 1s)).at(0).deadline_ms, 0u);
}

TEST_F(RoundTest, FidelityIsTheMeanOfTheSitesThatSayTheSameStages) {
  auto round = round_of({{"a", 10}, {"b", 30}, {"c", 5}});
  auto a = good(1, 10), b = good(2, 30), c = good(3, 5);
  a.offer.fidelity = {{"topk", 0.5, 0.5}, {"zstd", 0.5, 0.5}};
  b.offer.fidelity = {{"topk", 1, 1.5}, {"zstd", 0.75, 1}};
  c.offer.fidelity = {{"another", 0, 100}};
  give(round, "a", a), give(round, "b", b), give(round, "c", c);
  const auto record = round.close(start);
  ASSERT_THAT(record.fidelity, SizeIs(2));
  EXPECT_EQ(record.fidelity[0].stage, "topk");
  EXPECT_DOUBLE_EQ(record.fidelity[0].cosine, 0.75);
  EXPECT_DOUBLE_EQ(record.fidelity[0].norm_ratio, 1);
  EXPECT_DOUBLE_EQ(record.fidelity[1].cosine, 0.625);
}

TEST_F(RoundTest, IsCompleteAsSoonAsEverySiteIsInTheSum) {
  auto round = round_of({{"a", 10}, {"b", 30}});
  const auto first = give(round, "a", good(1, 10, 0.2));
  EXPECT_EQ(sent<Accepted>(first, "a").at(0).update, good(1, 10).offer.update);
  EXPECT_FALSE(round.over(start));
  give(round, "b", good(2, 30, 0.6));
  ASSERT_TRUE(round.over(start));
  const auto record = round.close(start + 5s);
  EXPECT_EQ(record.outcome, "complete");
  EXPECT_EQ(record.round, 3u);
  EXPECT_THAT(record.accepted, ElementsAre("a", "b"));
  EXPECT_THAT(record.missing, IsEmpty());
  EXPECT_EQ(record.samples, 40u);
  EXPECT_EQ(record.cohort_samples, 40u);
  EXPECT_DOUBLE_EQ(record.train_loss, (10 * 0.2 + 30 * 0.6) / 40);
  EXPECT_EQ(record.started, start);
  EXPECT_EQ(record.ended, start + 5s);
  EXPECT_EQ(sum.weight(), 40u);
}

TEST_F(RoundTest, SettlesForAQuorumWhenTheDeadlinePasses) {
  auto round = round_of({{"a", 10}, {"b", 10}, {"c", 10}}, {.quorum = 2});
  give(round, "a", good(1, 10));
  give(round, "c", good(2, 10));
  EXPECT_FALSE(round.over(end - 1ms));
  EXPECT_TRUE(round.over(end));
  const auto record = round.close(end);
  EXPECT_EQ(record.outcome, "partial");
  EXPECT_THAT(record.accepted, ElementsAre("a", "c"));
  EXPECT_THAT(record.missing, ElementsAre(Pair("b", "no update before the deadline")));
}

TEST_F(RoundTest, IsVoidWithoutAQuorumOfSites) {
  auto round = round_of({{"a", 90}, {"b", 10}}, {.quorum = 2});
  give(round, "a", good(1, 90));
  EXPECT_EQ(round.close(end).outcome, "void");
}

TEST_F(RoundTest, IsVoidWithoutAQuorumOfImages) {
  const Cohort cohort{{"large", 61}, {"small", 39}};
  auto short_of = round_of(cohort, {.quorum = 1, .quorum_share = 0.4});
  give(short_of, "small", good(1, 39));
  EXPECT_EQ(short_of.close(end).outcome, "void");
  auto just = round_of(cohort, {.quorum = 1, .quorum_share = 0.39});
  give(just, "small", good(1, 39));
  EXPECT_EQ(just.close(end).outcome, "partial");
}

TEST_F(RoundTest, NamesEveryMissingSiteWithItsReason) {
  auto round = round_of({{"accepted", 9},
                         {"gone", 1},
                         {"late", 1},
                         {"queued", 1},
                         {"refused", 1},
                         {"returned", 1},
                         {"silent", 1}},
                        {.uploads = 1});
  give(round, "accepted", good(1, 9));
  round.left("gone", "idle for 60 s");
  round.left("returned", "idle for 60 s");
  round.came("returned");
  round.offered("refused", good(2, 77).offer);
  round.offered("late", good(3, 1).offer);
  round.offered("queued", good(4, 1).offer);
  const auto record = round.close(end);
  EXPECT_EQ(record.outcome, "partial");
  EXPECT_THAT(record.accepted, ElementsAre("accepted"));
  EXPECT_THAT(record.missing,
              ElementsAre(Pair("gone", "disconnected: idle for 60 s"),
                          Pair("late", "late: the deadline passed during the upload"),
                          Pair("queued", "late: the deadline passed before its turn to upload"),
                          Pair("refused", HasSubstr("refused: it stands for 77 training images")),
                          Pair("returned", "no update before the deadline"),
                          Pair("silent", "no update before the deadline")));
}

TEST_F(RoundTest, RefusesAnOfferThatIsNotOfThisJobAndSaysWhy) {
  const auto try_offer = [&](auto change) {
    auto round = round_of({{"a", 10}, {"b", 10}});
    auto offer = good(1, 10).offer;
    change(offer);
    const auto reason = refusal(round.offered("a", offer), "a");
    EXPECT_FALSE(round.over(start)) << "the other site is still awaited";
    EXPECT_THAT(round.close(end).missing, testing::Contains(Pair("a", "refused: " + reason)));
    return reason;
  };
  EXPECT_THAT(try_offer([](auto& o) { o.architecture = sha256("another network"); }),
              HasSubstr("architecture"));
  EXPECT_THAT(try_offer([](auto& o) { o.samples = 11; }),
              HasSubstr("11 training images, but the site announced 10"));
  EXPECT_THAT(try_offer([](auto& o) { o.update_bytes = 0; }), HasSubstr("0 bytes"));
  EXPECT_THAT(try_offer([&](auto& o) { o.update_bytes = codec.size_bound() + 1; }),
              HasSubstr("bytes; an update of this job has 1 to"));
}

TEST_F(RoundTest, RefusesAnUpdateThatTheSumRefusesAndGoesOnWithTheOthers) {
  auto round = round_of({{"a", 10}, {"b", 10}}, {.max_norm = 1});
  const auto large = gift(encoded(codec, std::vector<float>(space.size(), 1.0f)), 10);
  EXPECT_THAT(refusal(give(round, "a", large), "a"), HasSubstr("norm"));
  EXPECT_EQ(sum.weight(), 0u);
  give(round, "b", good(2, 10));
  const auto record = round.close(end);
  EXPECT_EQ(record.outcome, "partial");
  EXPECT_THAT(record.accepted, ElementsAre("b"));
}

TEST_F(RoundTest, RefusesAChunkThatDoesNotHaveThePromisedHash) {
  auto round = round_of({{"a", 10}});
  const auto fetch = sent<Fetch>(round.offered("a", good(1, 10).offer)).at(0);
  auto chunk = good(1, 10).shelf.serve(fetch).value();
  chunk.bytes[100] ^= std::byte{1};
  EXPECT_THAT(refusal(round.arrived("a", chunk), "a"), HasSubstr("promised hash"));
  EXPECT_EQ(sum.weight(), 0u);
}

TEST_F(RoundTest, RefusesAnEmptyChunkInsteadOfAskingForEver) {
  auto round = round_of({{"a", 10}});
  const auto offer = good(1, 10).offer;
  round.offered("a", offer);
  EXPECT_THAT(refusal(round.arrived("a", {offer.update, 0, {}}), "a"), HasSubstr("a piece of 0"));
}

TEST_F(RoundTest, ASiteThatWasRefusedStaysRefused) {
  auto round = round_of({{"a", 10}});
  auto bad = good(1, 10).offer;
  bad.samples = 11;
  round.offered("a", bad);
  EXPECT_THAT(refusal(round.offered("a", good(1, 10).offer), "a"), HasSubstr("11 training images"));
  EXPECT_TRUE(round.over(start));
  EXPECT_EQ(round.close(start).outcome, "void");
}

TEST_F(RoundTest, ARepeatedOfferOfAnAcceptedUpdateIsAcknowledgedAgainAndCountedOnce) {
  auto round = round_of({{"a", 10}, {"b", 10}});
  const auto mine = good(1, 10);
  give(round, "a", mine);
  const auto before = mean();
  round.left("a", "connection reset");  // the acknowledgement was lost with it
  round.came("a");
  const auto again = round.offered("a", mine.offer);
  ASSERT_THAT(again, SizeIs(1));
  EXPECT_EQ(sent<Accepted>(again, "a").at(0).update, mine.offer.update);
  EXPECT_EQ(sum.weight(), 10u);
  EXPECT_EQ(mean(), before);
}

TEST_F(RoundTest, ASecondOpinionOfAnAcceptedSiteIsRefusedAndTheFirstStands) {
  auto round = round_of({{"a", 10}});
  give(round, "a", good(1, 10));
  const auto before = mean();
  EXPECT_THAT(refusal(give(round, "a", good(2, 10)), "a"), HasSubstr("already accepted"));
  EXPECT_EQ(mean(), before);
  const auto record = round.close(start);
  EXPECT_EQ(record.outcome, "complete");
  EXPECT_EQ(record.samples, 10u);
}

TEST_F(RoundTest, AnotherOfferInMidUploadTakesThePlaceOfTheFirst) {
  auto round = round_of({{"a", 10}});
  const auto first = good(1, 10), second = good(2, 10);
  const auto stale = sent<Fetch>(round.offered("a", first.offer)).at(0);
  const auto sends = round.offered("a", second.offer);
  EXPECT_THAT(round.arrived("a", first.shelf.serve(stale).value()), IsEmpty());
  EXPECT_EQ(sent<Accepted>(serve(round, "a", second, sends)).at(0).update, second.offer.update);
  Accumulator expected(space.size());
  ASSERT_TRUE(expected.fold(codec, encoded(codec, made_delta(space, 2)), 10, 1000));
  std::vector<float> values(space.size());
  expected.apply(values, 1);
  EXPECT_EQ(mean(), values);
}

TEST_F(RoundTest, ASiteThatWasNotAskedIsToldSoAndChangesNothing) {
  auto round = round_of({{"a", 10}});
  EXPECT_FALSE(round.invited("stranger"));
  EXPECT_THAT(refusal(round.offered("stranger", good(1, 10).offer), "stranger"),
              HasSubstr("not asked"));
  EXPECT_THAT(round.arrived("stranger", {good(1, 10).offer.update, 0, Bytes(4)}), IsEmpty());
  EXPECT_THAT(round.left("stranger", "why"), IsEmpty());
  round.came("stranger");
  EXPECT_EQ(sum.weight(), 0u);
  EXPECT_THAT(round.close(end).missing, SizeIs(1));
}

TEST_F(RoundTest, AChunkThatNobodyAskedForIsIgnored) {
  auto round = round_of({{"a", 10}});
  const auto mine = good(1, 10);
  const auto whole = mine.shelf.serve({mine.offer.update, 0, kChunkBytes}).value();
  EXPECT_THAT(round.arrived("a", whole), IsEmpty());
  EXPECT_EQ(sum.weight(), 0u);
}

TEST_F(RoundTest, NeverFetchesMoreUpdatesAtATimeThanThereAreSlots) {
  constexpr int kSites = 7, kSlots = 2;
  Cohort cohort;
  for (int s = 0; s < kSites; ++s) cohort["site-" + std::to_string(s)] = 10;
  auto round = round_of(cohort, {.uploads = kSlots});
  std::map<std::string, Gift> gifts;
  std::deque<Round::Send> queue;
  std::set<std::string> busy, done;
  std::size_t most = 0;
  const auto hear = [&](Round::Sends sends) {
    for (auto& send : sends) {
      if (std::holds_alternative<Fetch>(send.message))
        busy.insert(send.peer), queue.push_back(send);
      if (std::holds_alternative<Accepted>(send.message))
        busy.erase(send.peer), done.insert(send.peer);
    }
    most = std::max(most, busy.size());
  };
  for (const auto& [name, samples] : cohort) {
    gifts[name] = good(gifts.size(), samples);
    hear(round.offered(name, gifts[name].offer));
  }
  EXPECT_EQ(queue.size(), std::size_t(kSlots));
  for (; !queue.empty(); queue.pop_front()) {
    const auto peer = queue.front().peer;
    hear(round.arrived(peer,
                       gifts[peer].shelf.serve(std::get<Fetch>(queue.front().message)).value()));
  }
  EXPECT_EQ(most, std::size_t(kSlots));
  EXPECT_THAT(done, SizeIs(kSites));
  EXPECT_EQ(round.close(start).outcome, "complete");
}

TEST_F(RoundTest, ASlotIsFreedByARefusalAndByADisconnection) {
  auto round = round_of({{"a", 10}, {"b", 10}, {"c", 10}}, {.uploads = 1});
  const auto a = good(1, 10);
  round.offered("a", a.offer);
  EXPECT_THAT(sent<Fetch>(round.offered("b", good(2, 10).offer)), IsEmpty());
  EXPECT_THAT(sent<Fetch>(round.offered("c", good(3, 10).offer)), IsEmpty());
  const auto after_refusal = round.arrived("a", {a.offer.update, 0, {}});
  EXPECT_THAT(sent<Refused>(after_refusal, "a"), SizeIs(1));
  EXPECT_THAT(sent<Fetch>(after_refusal, "b"), SizeIs(1));
  EXPECT_THAT(sent<Fetch>(after_refusal, "c"), IsEmpty());
  EXPECT_THAT(sent<Fetch>(round.left("b", "gone"), "c"), SizeIs(1));
}

TEST_F(RoundTest, ASiteThatLeavesTheQueueLosesItsTurnAndGetsAnother) {
  auto round = round_of({{"a", 10}, {"b", 10}}, {.uploads = 1});
  const auto a = good(1, 10), b = good(2, 10);
  const auto fetches = round.offered("a", a.offer);
  round.offered("b", b.offer);
  round.left("b", "gone");
  EXPECT_THAT(sent<Fetch>(serve(round, "a", a, fetches), "b"), IsEmpty());
  round.came("b");
  EXPECT_THAT(sent<Accepted>(give(round, "b", b), "b"), SizeIs(1));
  EXPECT_EQ(round.close(start).outcome, "complete");
}

}  // namespace
}  // namespace preceptor::coordinator
