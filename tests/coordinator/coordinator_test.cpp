#include "tests/coordinator/hall.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using namespace transport;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::SizeIs;
using namespace test;

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
  Coordinator machine({"plan", 1, {}, made.space, &made.sum, nullptr, made.initial, teacher});
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
  const auto effects = hall.hear(Said{"birch", Hello{}});
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
    Coordinator machine({"plan", 1, {}, made.space, &made.sum, nullptr, std::move(initial), nullptr});
  };
  EXPECT_NO_THROW(start(made.initial));
  EXPECT_THROW(start(std::make_shared<const Bytes>(4)), std::logic_error);
  EXPECT_THROW(start(nullptr), std::logic_error);
}

}  // namespace
}  // namespace preceptor::coordinator
