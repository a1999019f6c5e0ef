#include "coordinator/coordinator.h"

#include <set>

#include "tests/coordinator/made.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using namespace transport;
using test::FakeSite;
using test::find;
using test::made_codec;
using test::made_delta;
using test::made_space;
using test::sent;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Pair;
using testing::SizeIs;

Blob blob_of(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return std::make_shared<const Bytes>(bytes.begin(), bytes.end());
}
std::span<const float> floats_of(const Blob& blob) {
  return {reinterpret_cast<const float*>(blob->data()), blob->size() / sizeof(float)};
}

/// A coordinator and sites that speak by hand, joined by lanes. Messages of one site in one
/// direction keep their order; which lane moves next is drawn from a seed.
class Hall {
 public:
  explicit Hall(RoundOptions options, std::uint64_t order = 1, bool secure = false) : order_(order, "hall") {
    if (secure) secret_sum.emplace(ring, 1);
    options.deadline = 100s;
    options.join_deadline = 50s;
    options.report_deadline = 200s;
    machine.emplace(
        Coordinator::Job{"rounds: 3\n", 1, options, space,
                         secure ? static_cast<RoundSum*>(&*secret_sum) : &sum, initial, /*teacher=*/nullptr});
  }

  /// The site comes (with `samples` images, if it is new) and says Hello.
  FakeSite& connect(const std::string& name, std::uint64_t samples = 10) {
    auto& site = sites.try_emplace(name, name, samples, codec, secret_sum ? &ring : nullptr).first->second;
    hear(Came{name});
    lanes_[{name, true}].push_back(site.hello());
    return site;
  }
  void disconnect(const std::string& name, const std::string& why) {
    lanes_.erase({name, true});
    lanes_.erase({name, false});
    hear(Left{name, why});
  }
  Effects hear(const Event& event) {
    auto effects = machine->step(event, now);
    for (const auto& effect : effects) {
      if (const auto* send = std::get_if<Send>(&effect)) {
        if (const auto* yes = std::get_if<Accepted>(&send->message)) {
          accepted_order += send->peer + " ";
          acknowledged[send->peer] = *yes;
        }
        lanes_[{send->peer, false}].push_back(send->message);
      } else if (const auto* evaluate = std::get_if<Evaluate>(&effect)) {
        records.push_back(evaluate->record);
        models.push_back(evaluate->model);
        evaluating = true;
      } else if (const auto* done = std::get_if<Finished>(&effect)) {
        EXPECT_FALSE(finished) << "finished twice";
        finished = *done;
      } else if (const auto* cut = std::get_if<Cut>(&effect)) {
        cuts.push_back(*cut);
      }
    }
    return effects;
  }
  /// Delivers one message, or the end of an evaluation. False: nothing is under way.
  bool turn() {
    std::vector<std::deque<Message>*> full;
    std::vector<std::pair<std::string, bool>> which;
    for (auto& [lane, letters] : lanes_)
      if (!letters.empty()) full.push_back(&letters), which.push_back(lane);
    const auto ways = full.size() + (evaluating ? 1 : 0);
    if (ways == 0) return false;
    const auto pick = order_.below(ways);
    if (pick == full.size()) {
      evaluating = false;
      hear(Evaluated{});
      return true;
    }
    const auto message = full[pick]->front();
    full[pick]->pop_front();
    const auto [name, up] = which[pick];
    if (up) {
      hear(Said{name, message});
    } else {
      for (auto& answer : sites.at(name).answer(message)) lanes_[{name, true}].push_back(answer);
    }
    return true;
  }
  void settle() {
    while (turn()) {
    }
  }
  void tick() {
    const auto deadline = machine->next_deadline();
    ASSERT_TRUE(deadline) << "nothing will ever happen again: " << machine->status();
    now = std::max(now, *deadline);
    hear(Tick{});
  }
  /// To the end of the job; time passes only when nobody has anything to say.
  void run() {
    for (int quiet = 0; !finished && quiet < 100; ++quiet) {
      settle();
      if (!finished) tick();
    }
    ASSERT_TRUE(finished) << machine->status();
    settle();
  }
  /// Until round `count` is measured.
  void run_rounds(std::size_t count) {
    for (int quiet = 0; records.size() < count;) {
      if (!turn()) tick(), ++quiet;
      if (finished || quiet == 100)
        throw std::runtime_error("no further round: " + machine->status());
    }
  }

  ParameterSpace space = made_space();
  compression::UpdateCodec codec = made_codec(space);
  PlainSum sum{codec, space.size()};
  compression::RingCodec ring = test::made_ring(space);
  std::optional<SecureSum> secret_sum;  ///< of the secure profile
  Blob initial = blob_of(made_delta(space, 99, 0.1));
  std::optional<Coordinator> machine;
  std::map<std::string, FakeSite> sites;
  Time now{0};
  std::vector<RoundRecord> records;
  std::vector<Blob> models;
  std::vector<Cut> cuts;
  std::optional<Finished> finished;
  std::string accepted_order;
  std::map<std::string, Accepted> acknowledged;  ///< the last of each site
  bool evaluating = false;

 private:
  RandomStream order_;
  std::map<std::pair<std::string, bool>, std::deque<Message>> lanes_;
};

const std::vector<std::string> kThree{"amber", "birch", "cedar"};

TEST(Coordinator, RunsAWholeJobFromHelloToVerdict) {
  Hall hall({.rounds = 3, .quorum = 3});
  for (const auto& name : kThree) hall.connect(name, 10 * name.size());
  hall.run();
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_EQ(hall.finished->reason, "every site reported");
  EXPECT_THAT(hall.finished->reports, SizeIs(3));
  EXPECT_EQ(hall.finished->reports["birch"].verdict, "federation helped");
  ASSERT_THAT(hall.records, SizeIs(3));
  for (std::uint32_t r = 0; r < 3; ++r) {
    EXPECT_EQ(hall.records[r].round, r + 1);
    EXPECT_EQ(hall.records[r].outcome, "complete");
    EXPECT_EQ(hall.records[r].accepted, kThree);
  }
  for (const auto& [name, site] : hall.sites) {
    EXPECT_THAT(site.accepted, ElementsAre(1, 2, 3)) << name;
    EXPECT_THAT(site.refused, IsEmpty()) << name;
    EXPECT_EQ(site.goodbye, "the report has arrived") << name;
  }
  EXPECT_EQ(hall.machine->rounds_done(), 3u);
  EXPECT_EQ(hall.now, 0s) << "nobody waited for a deadline";
  EXPECT_THAT(hall.cuts, IsEmpty());
}

TEST(Coordinator, EachRoundAddsTheWeightedMeanOfWhatTheSitesMadeOfItsModel) {
  Hall hall({.rounds = 2, .quorum = 2, .learning_rate = 0.5});
  hall.connect("amber", 30);
  hall.connect("birch", 10);
  hall.run();
  std::vector<double> model(floats_of(hall.initial).begin(), floats_of(hall.initial).end());
  for (std::uint64_t round = 1; round <= 2; ++round) {
    RandomStream amber(7, "amber", {round}), birch(7, "birch", {round});
    for (auto& value : model) {
      const double a = 0.01 * amber.normal() - 0.1 * value;
      const double b = 0.01 * birch.normal() - 0.1 * value;
      value += 0.5 * (0.75 * a + 0.25 * b);
    }
    int repaired = 0;
    const auto space = made_space();
    for (const auto& piece : space.pieces()) {
      for (std::size_t i = piece.offset; i < piece.offset + piece.size; ++i) {
        if (piece.role == Role::kNormVariance && model[i] < 0) model[i] = 0, ++repaired;
        ASSERT_NEAR(floats_of(hall.models[round - 1])[i], model[i], 1e-7) << round << " " << piece.name;
      }
    }
    if (round == 1) {
      EXPECT_GT(repaired, 0) << "no variance fell below zero, so the repair was not seen";
    }
  }
  EXPECT_EQ(hall.machine->model(), hall.models.back());
}

TEST(Coordinator, TheModelDoesNotDependOnHowMessagesOfDifferentSitesAreInterleaved) {
  std::set<std::string> models, orders, cohorts;
  for (std::uint64_t order = 0; order < 20; ++order) {
    Hall hall({.rounds = 3, .sites = 5, .cohort = 4, .quorum = 4, .uploads = 2}, order);
    for (const auto* name : {"amber", "birch", "cedar", "dogwood", "elm"})
      hall.connect(name, 7 + std::string(name).size());
    hall.run();
    models.insert(model_hash(floats_of(hall.machine->model())));
    orders.insert(hall.accepted_order);
    std::string cohort;
    for (const auto& record : hall.records)
      cohort += fmt::format("{}: {}\n", record.outcome, fmt::join(record.accepted, " "));
    cohorts.insert(cohort);
  }
  EXPECT_THAT(models, SizeIs(1));
  EXPECT_THAT(cohorts, SizeIs(1));
  EXPECT_GT(orders.size(), 5u) << "the shuffles must really change who comes first";
}

TEST(Coordinator, TheSecureProfilesModelIsTheSameInAnyOrderAndNearThePlainOne) {
  std::set<std::string> models, orders;
  const auto run = [&](std::uint64_t order, bool secure) {
    Hall hall({.rounds = 3, .sites = 5, .quorum = 5, .uploads = 2}, order, secure);
    for (const auto* name : {"amber", "birch", "cedar", "dogwood", "elm"})
      hall.connect(name, 7 + std::string(name).size());
    hall.run();
    for (const auto& record : hall.records) {
      EXPECT_EQ(record.outcome, "complete");
      EXPECT_DOUBLE_EQ(record.train_loss, 0.5);
      EXPECT_EQ(record.pooled_auc.value_or(0), secure ? 1 : 0);
    }
    orders.insert(hall.accepted_order);
    const auto values = floats_of(hall.machine->model());
    return std::vector<float>(values.begin(), values.end());
  };
  const auto plain = run(0, false);
  std::vector<float> secure;
  for (std::uint64_t order = 0; order < 20; ++order) models.insert(model_hash(secure = run(order, true)));
  EXPECT_THAT(models, SizeIs(1));
  EXPECT_GT(orders.size(), 5u);
  for (std::size_t i = 0; i < plain.size(); ++i) ASSERT_NEAR(secure[i], plain[i], 2e-3) << i;
}

TEST(Coordinator, NoCohortIsLargerThanTheRingHasRoomFor) {
  Hall hall({.rounds = 1, .sites = 10, .quorum = 4}, 1, true);
  for (const auto* name : {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}) hall.connect(name);
  hall.run();
  EXPECT_EQ(hall.records.at(0).accepted.size(), 8u);
}

TEST(Coordinator, ACohortIsDrawnAnewEachRoundFromTheSitesThatAreThere) {
  const auto run = [](bool backwards) {
    Hall hall({.rounds = 6, .sites = 5, .cohort = 2, .quorum = 2});
    std::vector<std::string> names{"a", "b", "c", "d", "e"};
    if (backwards) std::ranges::reverse(names);
    for (const auto& name : names) hall.connect(name);
    hall.run();
    std::vector<std::vector<std::string>> cohorts;
    for (const auto& record : hall.records) cohorts.push_back(record.accepted);
    return cohorts;
  };
  const auto cohorts = run(false);
  for (const auto& cohort : cohorts) EXPECT_THAT(cohort, SizeIs(2));
  EXPECT_GT(std::set(cohorts.begin(), cohorts.end()).size(), 1u);
  EXPECT_EQ(run(true), cohorts) << "who came first does not matter";
}

TEST(Coordinator, WaitsForTheSitesItWasPromisedAndNoLongerThanTheJoinDeadline) {
  Hall hall({.rounds = 1, .sites = 3, .quorum = 2});
  hall.connect("amber");
  hall.connect("birch");
  hall.settle();
  EXPECT_THAT(hall.machine->status(), HasSubstr("gathering"));
  EXPECT_EQ(hall.machine->next_deadline(), Time(50s));
  hall.now = 50s - 1ms;
  EXPECT_THAT(hall.hear(Tick{}), IsEmpty());
  hall.now = 50s;
  EXPECT_THAT(sent<RoundStart>(hall.hear(Tick{})), SizeIs(2));
  EXPECT_EQ(hall.machine->next_deadline(), Time(150s));
}

TEST(Coordinator, GivesUpWhenTooFewSitesComeBeforeTheJoinDeadline) {
  Hall hall({.rounds = 1, .quorum = 2});
  hall.connect("amber");
  hall.run();
  EXPECT_FALSE(hall.finished->completed);
  EXPECT_THAT(hall.finished->reason, HasSubstr("fewer than federation.quorum = 2"));
  EXPECT_EQ(hall.sites.at("amber").goodbye, hall.finished->reason);
}

TEST(Coordinator, WaitsAnotherJoinDeadlineForSitesThatVanishBetweenRoundsAndThenGivesUp) {
  for (const bool back : {true, false}) {
    Hall hall({.rounds = 2, .quorum = 1});
    hall.connect("amber");
    hall.run_rounds(1);
    hall.disconnect("amber", "power cut");
    hall.now = 1000s;
    hall.settle();
    EXPECT_EQ(hall.machine->next_deadline(), Time(1050s));
    hall.now = 1050s - 1ms;
    hall.hear(Tick{});
    ASSERT_FALSE(hall.finished);
    if (back) hall.connect("amber");
    hall.run();
    EXPECT_EQ(hall.finished->completed, back);
    EXPECT_THAT(hall.records, SizeIs(back ? 2 : 1));
  }
}

TEST(Coordinator, ASiteWithoutImagesIsNeitherAskedNorAwaited) {
  Hall hall({.rounds = 1, .quorum = 1});
  hall.connect("empty", 0);
  hall.settle();
  EXPECT_THAT(hall.machine->status(), HasSubstr("gathering"));
  hall.connect("amber");
  hall.run();
  EXPECT_THAT(hall.records.at(0).accepted, ElementsAre("amber"));
  EXPECT_EQ(hall.finished->reason, "every site reported");
}

TEST(Coordinator, ALateJoinerIsWelcomedAndTakesPartInTheNextRound) {
  Hall hall({.rounds = 2, .quorum = 1});
  hall.connect("amber").lazy = true;  // holds round 1 open
  hall.settle();
  hall.connect("birch");
  hall.settle();
  hall.sites.at("amber").lazy = false;
  hall.disconnect("amber", "restarted");
  hall.connect("amber");
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(2));
  EXPECT_THAT(hall.records[0].accepted, ElementsAre("amber"));
  EXPECT_THAT(hall.records[1].accepted, ElementsAre("amber", "birch"));
  EXPECT_THAT(hall.sites.at("birch").accepted, ElementsAre(2));
  EXPECT_THAT(hall.finished->reports, SizeIs(2));
}

TEST(Coordinator, ASiteThatComesInTheVerdictPhaseIsAskedForItsVerdict) {
  Hall hall({.rounds = 1, .quorum = 1});
  hall.connect("amber");
  hall.run_rounds(1);
  hall.evaluating = false;
  hall.hear(Evaluated{});
  hall.hear(Came{"birch"});
  const auto effects = hall.hear(Said{"birch", Hello{.train_samples = 5}});
  EXPECT_THAT(sent<Welcome>(effects, "birch"), SizeIs(1));
  ASSERT_THAT(sent<Finish>(effects, "birch"), SizeIs(1));
  EXPECT_EQ(sent<Finish>(effects, "birch")[0].model, sha256(*hall.machine->model()));
}

TEST(Coordinator, GoesOnWithoutASiteThatVanishes) {
  Hall hall({.rounds = 3, .sites = 3, .quorum = 2});
  for (const auto& name : kThree) hall.connect(name);
  hall.run_rounds(1);
  hall.disconnect("cedar", "idle for 60 s");
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(3));
  EXPECT_THAT(hall.records[2].accepted, ElementsAre("amber", "birch"));
  EXPECT_EQ(hall.records[2].outcome, "complete") << "it was not asked any more";
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_EQ(hall.finished->reason, "report_deadline passed") << "it may have come back to report";
  EXPECT_THAT(hall.finished->reports, SizeIs(2));
}

TEST(Coordinator, NamesASiteThatVanishesInMidRound) {
  Hall hall({.rounds = 1, .sites = 3, .quorum = 2});
  for (const auto& name : kThree) hall.connect(name);
  hall.sites.at("cedar").lazy = true;
  hall.settle();
  hall.disconnect("cedar", "idle for 60 s");
  EXPECT_THAT(hall.records, IsEmpty()) << "it may come back until the deadline";
  hall.tick();
  EXPECT_EQ(hall.now, 100s);
  ASSERT_THAT(hall.records, SizeIs(1));
  EXPECT_EQ(hall.records[0].outcome, "partial");
  EXPECT_THAT(hall.records[0].missing, ElementsAre(Pair("cedar", "disconnected: idle for 60 s")));
}

TEST(Coordinator, ASiteThatComesBackInMidRoundIsInvitedAgain) {
  Hall hall({.rounds = 1, .quorum = 3});
  for (const auto& name : kThree) hall.connect(name);
  hall.sites.at("cedar").lazy = true;
  hall.settle();
  hall.disconnect("cedar", "power cut");
  hall.sites.at("cedar").lazy = false;
  hall.connect("cedar");
  hall.run();
  EXPECT_EQ(hall.records.at(0).outcome, "complete");
  EXPECT_EQ(hall.finished->reason, "every site reported");
}

TEST(Coordinator, AVoidRoundLeavesTheModelAloneAndTheNextMaySucceed) {
  Hall hall({.rounds = 3, .quorum = 2, .max_void_rounds = 2});
  hall.connect("amber");
  hall.connect("birch").lazy = true;
  hall.run_rounds(1);
  EXPECT_EQ(hall.records[0].outcome, "void");
  EXPECT_EQ(hall.models[0], hall.initial);
  hall.sites.at("birch").lazy = false;
  hall.run_rounds(2);
  EXPECT_EQ(hall.records[1].outcome, "complete");
  EXPECT_NE(*hall.models[1], *hall.initial);
  hall.sites.at("birch").lazy = true;
  hall.run();
  ASSERT_THAT(hall.records, SizeIs(3));
  EXPECT_EQ(hall.records[2].outcome, "void") << "the first of its row, so the job goes on";
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_EQ(hall.machine->model(), hall.models[1]);
}

TEST(Coordinator, GivesUpAfterTooManyVoidRoundsInARow) {
  Hall hall({.rounds = 9, .quorum = 1, .max_void_rounds = 3});
  hall.connect("amber").lazy = true;
  hall.run();
  EXPECT_FALSE(hall.finished->completed);
  EXPECT_THAT(hall.finished->reason, HasSubstr("3 rounds in a row without a quorum"));
  EXPECT_THAT(hall.records, SizeIs(3)) << "the last void round is recorded too";
  EXPECT_EQ(hall.now, 300s);
  EXPECT_EQ(hall.machine->model(), hall.initial);
  EXPECT_FALSE(hall.machine->next_deadline());
}

TEST(Coordinator, APoisonedSiteLosesItsPlaceAndTheRoundGoesOn) {
  Hall with({.rounds = 2, .sites = 3, .quorum = 2}), without({.rounds = 2, .quorum = 2});
  for (const auto* name : {"amber", "birch"}) with.connect(name), without.connect(name);
  with.connect("mallory").poisoned = true;
  with.run();
  without.run();
  for (const auto& record : with.records) {
    EXPECT_EQ(record.outcome, "partial");
    EXPECT_THAT(record.missing, ElementsAre(Pair("mallory", HasSubstr("not finite"))));
  }
  EXPECT_THAT(with.sites.at("mallory").refused, Contains(HasSubstr("not finite")));
  EXPECT_EQ(*with.machine->model(), *without.machine->model());
}

TEST(Coordinator, ASiteThatClaimsMoreImagesThanASumCanHoldIsCutAndMakesNoRoundVoid) {
  Hall hall({.rounds = 1, .sites = 2, .quorum = 1});
  hall.connect("amber");
  hall.connect("mallory", ~std::uint64_t{0} / 2);
  hall.run();
  ASSERT_THAT(hall.cuts, SizeIs(1));
  EXPECT_EQ(hall.cuts[0].peer, "mallory");
  EXPECT_THAT(hall.cuts[0].reason, HasSubstr("training images"));
  EXPECT_EQ(hall.records.at(0).outcome, "complete");
  EXPECT_THAT(hall.records[0].accepted, ElementsAre("amber"));
}

TEST(Coordinator, NoRoundStartsBeforeTheLastOneIsMeasured) {
  Hall hall({.rounds = 2, .quorum = 1});
  hall.connect("amber");
  hall.run_rounds(1);
  hall.evaluating = false;
  hall.settle();
  EXPECT_THAT(hall.machine->status(), HasSubstr("evaluating"));
  EXPECT_FALSE(hall.machine->next_deadline());
  hall.now += 1h;
  EXPECT_THAT(hall.hear(Tick{}), IsEmpty());
  const auto effects = hall.hear(Evaluated{});
  ASSERT_THAT(sent<RoundStart>(effects, "amber"), SizeIs(1));
  EXPECT_EQ(sent<RoundStart>(effects, "amber")[0].round, 2u);
  EXPECT_THAT(hall.hear(Evaluated{}), IsEmpty()) << "an answer to no question";
}

TEST(Coordinator, SaysThatABlobIsNotThereInsteadOfBeingSilent) {
  Hall hall({.rounds = 2, .quorum = 1});
  hall.connect("amber");
  const auto ask = [&](const Digest& blob) {
    return hall.hear(Said{"amber", Fetch{blob, 0, kChunkBytes}});
  };
  const auto unknown = sent<Refused>(ask(sha256("nothing")), "amber");
  ASSERT_THAT(unknown, SizeIs(1));
  EXPECT_THAT(unknown[0].reason, HasSubstr("no such blob"));
  const auto first = sha256(*hall.initial);
  EXPECT_THAT(sent<Chunk>(ask(first), "amber"), SizeIs(1));
  hall.run_rounds(1);
  EXPECT_THAT(sent<Refused>(ask(first), "amber"), SizeIs(1)) << "the round's model has replaced it";
  EXPECT_THAT(sent<Chunk>(ask(sha256(*hall.machine->model())), "amber"), SizeIs(1));
}

TEST(Coordinator, ServesTheTeacherForTheWholeJob) {
  Hall made({.rounds = 1, .quorum = 1});
  const auto teacher = std::make_shared<const Bytes>(1000, std::byte{3});
  Coordinator machine({"plan", 1, {}, made.space, &made.sum, made.initial, teacher});
  const auto effects = machine.step(Said{"amber", Fetch{sha256(*teacher), 0, kChunkBytes}}, 0s);
  ASSERT_THAT(sent<Chunk>(effects, "amber"), SizeIs(1));
  EXPECT_EQ(sent<Chunk>(effects, "amber")[0].bytes, *teacher);
}

TEST(Coordinator, AnOfferForARoundThatIsNotOpenIsRefusedWithTheOneThatIs) {
  Hall hall({.rounds = 2, .quorum = 1});
  hall.connect("amber").lazy = true;
  hall.settle();
  const auto offer = [&](std::uint32_t round) {
    const auto effects =
        hall.hear(Said{"amber", UpdateOffer{round, {}, 1, hall.space.architecture_hash(), 10, 0}});
    const auto refused = sent<Refused>(effects, "amber");
    return refused.size() == 1 && refused[0].round == round ? refused[0].reason : "not refused";
  };
  EXPECT_THAT(offer(7), HasSubstr("round 1 is open"));
  hall.run_rounds(1);
  EXPECT_THAT(offer(1), HasSubstr("no round is open"));
}

TEST(Coordinator, AnAcknowledgementThatWasLostIsRepeatedAfterItsRoundToo) {
  Hall hall({.rounds = 2, .quorum = 2});
  hall.connect("amber");
  hall.connect("birch");
  hall.run_rounds(1);
  const auto offers = [&](const Digest& update) {
    return hall.hear(
        Said{"amber", UpdateOffer{1, update, 1, hall.space.architecture_hash(), 10, 0}});
  };
  const auto update = hall.acknowledged.at("amber").update;
  for (int i = 0; i < 2; ++i) {  // while the round is measured, and in the next one
    const auto yes = sent<Accepted>(offers(update), "amber");
    ASSERT_THAT(yes, SizeIs(1));
    EXPECT_EQ(yes[0].round, 1u);
    EXPECT_THAT(sent<Refused>(offers(sha256("another")), "amber"), SizeIs(1));
    hall.hear(Evaluated{});
  }
}

TEST(Coordinator, AnOfferThatIsOpenWhenItsRoundClosesIsAnswered) {
  Hall slow({.rounds = 1, .sites = 2, .quorum = 1, .quorum_share = 0.1});
  for (const auto* name : {"amber", "birch"}) slow.connect(name).lazy = true;
  slow.settle();
  const auto size = slow.codec.size_bound();
  slow.hear(Said{"birch", UpdateOffer{1, {}, size, slow.space.architecture_hash(), 10, 0}});
  slow.now = 100s;
  const auto effects = slow.hear(Tick{});
  const auto no = sent<Refused>(effects);
  ASSERT_THAT(no, SizeIs(1)) << "only the one that offered";
  EXPECT_EQ(no[0].round, 1u);
  EXPECT_THAT(no[0].reason, HasSubstr("late"));
}

TEST(Coordinator, AReportThatNobodyAskedForDoesNotCount) {
  Hall early({.rounds = 1, .quorum = 1});
  early.hear(Came{"amber"});
  const auto effects = early.hear(Said{"amber", SiteReport{}});
  EXPECT_EQ(sent<Goodbye>(effects, "amber").at(0).reason, "no report was asked for");
  early.connect("amber");
  early.run_rounds(1);
  early.disconnect("amber", "gone");
  early.run();
  EXPECT_EQ(early.finished->reason, "report_deadline passed");
  EXPECT_THAT(early.finished->reports, IsEmpty());
}

TEST(Coordinator, WaitsForReportsUntilTheReportDeadline) {
  Hall hall({.rounds = 1, .quorum = 2});
  hall.connect("amber");
  hall.connect("birch");
  hall.run_rounds(1);
  hall.disconnect("birch", "gone");
  hall.settle();
  ASSERT_FALSE(hall.finished);
  EXPECT_EQ(hall.machine->next_deadline(), Time(200s));
  hall.now = 200s - 1ms;
  hall.hear(Tick{});
  EXPECT_FALSE(hall.finished);
  hall.now = 200s;
  hall.hear(Tick{});
  ASSERT_TRUE(hall.finished);
  EXPECT_TRUE(hall.finished->completed);
  EXPECT_THAT(hall.finished->reports, ElementsAre(Key("amber")));
}

TEST(Coordinator, WhoComesAfterTheEndIsToldThatTheJobIsOver) {
  Hall hall({.rounds = 1, .quorum = 1});
  hall.connect("amber");
  hall.run();
  const auto effects = hall.hear(Said{"birch", Hello{.train_samples = 5}});
  ASSERT_THAT(effects, SizeIs(1));
  EXPECT_EQ(sent<Goodbye>(effects, "birch").at(0).reason, "the job is over");
}

TEST(Coordinator, ANodeThatSendsWhatOnlyACoordinatorSendsIsCutAndTheOthersGoOn) {
  const std::vector<Message> wrong{Welcome{}, RoundStart{}, Accepted{},
                                   Refused{}, Finish{},     Goodbye{}};
  for (const auto& message : wrong) {
    Hall hall({.rounds = 1, .quorum = 1});
    hall.connect("amber");
    const auto effects = hall.hear(Said{"mallory", message});
    const auto cuts = find<Cut>(effects);
    ASSERT_THAT(cuts, SizeIs(1)) << message_name(message);
    EXPECT_EQ(cuts[0].peer, "mallory");
    EXPECT_THAT(cuts[0].reason, HasSubstr(message_name(message)));
    hall.run();
    EXPECT_TRUE(hall.finished->completed);
    EXPECT_THAT(hall.records.at(0).accepted, ElementsAre("amber"));
  }
}

TEST(Coordinator, AnInitialModelOfTheWrongSizeIsABug) {
  Hall made({.rounds = 1});
  const auto start = [&](Blob initial) {
    Coordinator machine({"plan", 1, {}, made.space, &made.sum, std::move(initial), nullptr});
  };
  EXPECT_NO_THROW(start(made.initial));
  EXPECT_THROW(start(std::make_shared<const Bytes>(4)), std::logic_error);
  EXPECT_THROW(start(nullptr), std::logic_error);
}

}  // namespace
}  // namespace preceptor::coordinator
