#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <deque>
#include <functional>

#include "compression/update/sum_step.h"
#include "coordinator/masked_sum.h"
#include "node/session.h"
#include "tests/coordinator/made.h"
#include "tests/support/temp_dir.h"

/// Coordinator and sessions as they are, with everything in between but the training: the masked model must be
/// the unmasked one of the same ring codec, whoever drops out when.
namespace preceptor {
namespace {

using coordinator::Coordinator;
using coordinator::RoundRecord;
using namespace coordinator::test;
using testing::HasSubstr;
using testing::IsEmpty;

class Federation {
 public:
  explicit Federation(int sites, int k_min = 3) {
    std::map<std::string, Bytes> keys;
    for (int i = 0; i < sites; ++i) {
      const auto name = fmt::format("site-{}", i);
      signers_[name] = std::make_shared<privacy::KeySigner>(*privacy::KeySigner::generate());
      keys[name] = signers_[name]->credential();
    }
    roster_ = std::make_shared<privacy::KeyRoster>(std::move(keys));
    context.job = "test";
    context.plan = sha256("plan");
    context.k_min = k_min;
    context.vectors = {{"update", ring.words(), ring.options().ring_bits}, {"totals", ring.totals(), 64}};
    expected = context;
    options.rounds = 3;
    options.sites = sites;
    options.quorum = k_min;
    options.quorum_share = 0;
    options.max_void_rounds = 10;
    limits.k_min = 3;
  }
  /// Models travel as published sums.
  void publish_sums() {
    options.downlink.mode = "sum";
    context.recomputed = expected.recomputed = true;
  }

  /// Plays the job to its end. Returns the model's digest.
  Digest run(bool masked) {
    coordinator::SecureSum plain(ring, 1);
    Publisher hidden(ring, 1, context, *roster_, std::chrono::seconds(60));
    hidden.publish = publish;
    auto& sum = masked ? static_cast<coordinator::RoundSum&>(hidden) : plain;
    const auto start = made_delta(space, 99);
    const auto bytes = std::as_bytes(std::span(start));
    initial_ = hex(sha256(bytes));
    whole = 0;
    Coordinator machine(Coordinator::Job{"plan", 1, options, space, &sum, nullptr, std::make_shared<Bytes>(bytes.begin(), bytes.end()), nullptr});
    machine_ = &machine;
    masked_ = masked;
    records.clear();
    stops.clear();
    gone_.clear();
    finished_ = false;
    now_ = Time(0);
    letters_.clear();
    sessions_.clear();
    folder = std::make_unique<test::TempDir>();
    for (const auto& [name, signer] : signers_) open_session(name);
    for (auto& [name, session] : sessions_) connect(name);
    for (int turn = 0; turn < 100'000 && !finished_; ++turn) {
      if (!letters_.empty()) {
        deliver();
      } else {
        now_ = std::max(now_, machine.next_deadline().value_or(now_));
        tell_coordinator(coordinator::Tick{});
      }
    }
    EXPECT_TRUE(finished_);
    return sha256(*machine.model());
  }

  /// What a site learns in a round.
  Bytes update_of(const std::string& name, std::uint32_t round, std::vector<float> model) const {
    RandomStream random(7, name, {round});
    for (auto& value : model) value = float(0.01 * random.normal() - 0.1 * value);
    return secret(ring, model, 10 + std::uint64_t(name.back() - '0'), round);
  }
  /// The model that the records' survivors make by plain addition.
  Digest replayed() const {
    auto model = made_delta(space, 99);
    for (const auto& record : records) {
      if (record.outcome == "void") continue;
      compression::RingSum sum(ring);
      for (const auto& name : record.accepted) sum.add(update_of(name, record.round, model));
      compression::move_by_mean(model, sum.close({1, record.round}).value().mean, options.learning_rate);
      repair_variances(space, model);
    }
    return sha256(std::as_bytes(std::span(model)));
  }

  /// Asked before each delivery. kLost: the site is never heard of again. kCut: its connection breaks there, the
  /// message is lost, and it comes back at once. kRestart: the same, and the site has forgotten all but its files.
  /// kLater: others first.
  enum class Fate { kArrives, kLost, kCut, kRestart, kLater };
  std::function<Fate(const std::string& site, bool up, const transport::Message& message)> fate;
  std::function<void(const std::string& site, transport::Message& message)> tamper;  ///< towards the sites
  std::function<std::vector<transport::Message>(const std::string& site, const transport::Message& behind)> inject;
  std::function<std::optional<Bytes>(std::optional<Bytes> truth)> publish;  ///< what the coordinator says of a sum

  const ParameterSpace space = made_space();
  const compression::RingCodec ring = made_ring(space);
  privacy::SessionContext context;   ///< the coordinator's
  privacy::SessionContext expected;  ///< the plan's
  coordinator::RoundOptions options;
  privacy::SecureAggregationLimits limits;
  std::vector<RoundRecord> records;
  std::map<std::string, std::string> stops;
  std::map<std::string, transport::SiteReport> reports;
  std::vector<transport::Message> up;  ///< all that sites said
  int whole = 0;         ///< chunks of whole models
  bool durable = false;  ///< sites keep their sessions in files
  std::unique_ptr<test::TempDir> folder;

 private:
  struct Publisher : coordinator::MaskedSum {
    using MaskedSum::MaskedSum;
    std::optional<Bytes> published() const override { return publish ? publish(MaskedSum::published()) : MaskedSum::published(); }
    std::function<std::optional<Bytes>(std::optional<Bytes>)> publish;
  };
  struct Letter {
    std::string site;
    bool up;
    transport::Message message;
  };
  void open_session(const std::string& name) {
    sessions_.try_emplace(name, 10, node::MaskingPlace{name, signers_.at(name), roster_, durable ? *folder / name : std::filesystem::path()}, limits);
  }
  void connect(const std::string& name) {
    tell_coordinator(coordinator::Came{name});
    tell(name, node::Connected{});
  }
  void deliver() {
    auto [name, is_up, message] = std::move(letters_.front());
    letters_.pop_front();
    if (gone_.contains(name)) return;
    const auto what = fate ? fate(name, is_up, message) : Fate::kArrives;
    if (what == Fate::kLater) return letters_.push_back({name, is_up, std::move(message)});
    if (what != Fate::kArrives) {
      std::erase_if(letters_, [&](const Letter& letter) { return letter.site == name; });
      tell(name, node::Disconnected{});
      tell_coordinator(coordinator::Left{name, "gone"});
      if (what == Fate::kRestart) {
        sessions_.erase(name);
        open_session(name);
      }
      if (what == Fate::kLost) gone_.insert(name);
      else connect(name);
      return;
    }
    auto copy = transport::decode_message(transport::encode_message(message)).value();
    if (is_up) {
      up.push_back(message);
      tell_coordinator(coordinator::Said{name, std::move(copy)});
    } else {
      if (tamper) tamper(name, copy);
      tell(name, node::Heard{copy});
      if (inject)
        for (auto& more : inject(name, copy)) tell(name, node::Heard{std::move(more)});
    }
  }
  void tell_coordinator(const coordinator::Event& event) {
    for (auto& effect : machine_->step(event, now_)) {
      const auto* send_ = std::get_if<coordinator::Send>(&effect);
      const auto* chunk = send_ ? std::get_if<transport::Chunk>(&send_->message) : nullptr;
      whole += chunk && chunk->bytes.size() == space.size() * sizeof(float);
      if (auto* send = std::get_if<coordinator::Send>(&effect)) letters_.push_back({send->peer, false, std::move(send->message)});
      if (auto* cut = std::get_if<coordinator::Cut>(&effect)) ADD_FAILURE() << cut->peer << ": " << cut->reason;
      if (auto* evaluate = std::get_if<coordinator::Evaluate>(&effect)) {
        records.push_back(evaluate->record);
        tell_coordinator(coordinator::Evaluated{});
      }
      if (auto* done = std::get_if<coordinator::Finished>(&effect)) {
        finished_ = true;
        reports = done->reports;
      }
    }
  }
  void tell(const std::string& name, node::Event event) {
    for (auto& effect : sessions_.at(name).step(std::move(event), now_)) {
      if (auto* send = std::get_if<node::Send>(&effect)) letters_.push_back({name, true, std::move(send->message)});
      if (std::get_if<node::ReadPlan>(&effect)) tell(name, plan_ready());
      if (auto* patch = std::get_if<node::Patch>(&effect)) tell(name, patched(*patch));
      if (auto* train = std::get_if<node::Train>(&effect)) {
        std::vector<float> model(space.size());
        std::memcpy(model.data(), train->model->data(), train->model->size());
        tell(name, node::Trained{train->round, update_of(name, train->round, model), 0, "", {}, true});
      }
      if (std::get_if<node::Judge>(&effect)) {
        transport::SiteReport report;
        report.train = 123;
        report.verdict = "federation helped";
        tell(name, node::Judged{report, ""});
      }
      if (auto* stop = std::get_if<node::Stop>(&effect)) {
        if (!stop->completed) stops[name] = stop->reason;
        gone_.insert(name);  // the daemon leaves
      }
    }
  }

  node::PlanReady plan_ready() const {
    node::PlanReady ready{true, "", "", 0, {}, {}};
    if (masked_) ready.masking = expected;
    if (expected.recomputed) ready.sums = {initial_, step().bytes(), std::uint32_t(options.rounds)};
    return ready;
  }
  compression::SumStep step() const { return {ring, 1, options.learning_rate, space}; }
  node::Patched patched(const node::Patch& patch) const {
    auto model = std::make_shared<Bytes>(*patch.base);
    for (std::size_t i = 0; i < patch.deltas.size(); ++i) {
      const auto applied = step().apply(patch.deltas[i], patch.patches[i].round, {reinterpret_cast<float*>(model->data()), space.size()});
      if (!applied) return {nullptr, applied.error().message};
    }
    if (sha256(*model) != patch.model) return {nullptr, "another hash"};
    return {model, ""};
  }

  std::string initial_;
  std::map<std::string, std::shared_ptr<privacy::KeySigner>> signers_;
  std::shared_ptr<const privacy::Roster> roster_;
  Coordinator* machine_ = nullptr;
  std::map<std::string, node::Session> sessions_;
  std::deque<Letter> letters_;
  std::set<std::string> gone_;
  Time now_{0};
  bool masked_ = false, finished_ = false;
};

/// Index of the inner message; -1: none.
int inner(const transport::Message& message) {
  const auto* outer = std::get_if<transport::SecureAggregation>(&message);
  return outer ? int(privacy::decode_envelope(outer->envelope)->message.index()) : -1;
}
std::uint32_t round_of(const transport::Message& message) {
  if (const auto* start = std::get_if<transport::RoundStart>(&message)) return start->round;
  if (const auto* secure = std::get_if<transport::SecureAggregation>(&message)) return secure->round;
  if (const auto* offer = std::get_if<transport::UpdateOffer>(&message)) return offer->round;
  return 0;
}

TEST(MaskedRounds, GiveTheModelOfUnmaskedOnes) {
  Federation federation(5);
  const auto masked = federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) {
    EXPECT_EQ(record.outcome, "complete") << record.refused << fmt::format("{}", record.missing.size());
    EXPECT_EQ(record.accepted.size(), 5u);
    EXPECT_NEAR(record.train_loss, 0.5, 1e-5) << "of the masked totals";
    EXPECT_TRUE(record.pooled_auc);
  }
  EXPECT_THAT(federation.stops, IsEmpty());
  const auto unmasked = federation.run(false);
  EXPECT_EQ(hex(masked), hex(unmasked));
}

TEST(MaskedRounds, EverySiteMakesTheNextModelFromThePublishedSum) {
  Federation federation(5);
  federation.publish_sums();
  const auto made = federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.refused;
  EXPECT_THAT(federation.stops, IsEmpty());
  EXPECT_EQ(federation.whole, 5) << "the first model; the others are made";
  EXPECT_EQ(hex(made), hex(federation.run(false))) << "also without masks";
  Federation fetching(5);
  EXPECT_EQ(hex(made), hex(fetching.run(true)));
}

/// I1, I9 and I12 at once: whoever is lost at whatever message, the coordinator and every site that is left have the
/// model of plain addition over the survivors.
RC_GTEST_PROP(MaskedRounds, MakeTheModelOfPlainAdditionAtEverySiteWhoeverIsLostWhen, ()) {
  const auto n = *rc::gen::inRange(3, 8);
  const auto f = *rc::gen::inRange(0, 2);
  Federation federation(n);
  federation.publish_sums();
  federation.context.colluders = federation.expected.colluders = privacy::threshold_of(n, f) <= n ? f : 0;
  std::map<std::string, int> left;  // messages until a site is lost
  for (int lost = *rc::gen::inRange(0, n); lost > 0; --lost)
    left[fmt::format("site-{}", *rc::gen::inRange(0, n))] = *rc::gen::inRange(1, 60);
  federation.fate = [&](const std::string& site, bool, const transport::Message&) {
    const auto due = left.find(site);
    return due != left.end() && --due->second <= 0 ? Federation::Fate::kLost : Federation::Fate::kArrives;
  };
  const auto made = federation.run(true);
  for (const auto& [site, why] : federation.stops) RC_ASSERT(why.find("published") == std::string::npos);  // too few are left at most
  const auto of = [&](const char* outcome) { return std::ranges::count(federation.records, outcome, &RoundRecord::outcome); };
  RC_CLASSIFY(of("complete") == 3, "all rounds complete");
  RC_CLASSIFY(of("partial") > 0, "a partial round");
  RC_CLASSIFY(of("void") > 0, "a void round");
  RC_ASSERT(federation.whole <= n);
  RC_ASSERT(hex(made) == hex(federation.replayed()));
  for (const auto& record : federation.records) RC_ASSERT(record.outcome != "void" || !record.refused.empty() || int(record.accepted.size()) < 3);
}

TEST(MaskedRounds, AModelThatThePublishedSumDoesNotMakeEndsEverySitesPart) {
  Federation federation(5);
  federation.publish_sums();
  federation.publish = [](std::optional<Bytes> truth) {  // and trains on with a model of its own
    (*truth)[0] ^= std::byte{1};
    return truth;
  };
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 5u);
  for (const auto& [site, why] : federation.stops)
    EXPECT_THAT(why, HasSubstr("not what its published sums make of this site's: another hash")) << site;
  EXPECT_EQ(federation.records[0].outcome, "complete");
  for (std::size_t r = 1; r < federation.records.size(); ++r) EXPECT_TRUE(federation.records[r].accepted.empty()) << r;
}

/// The named site restarts when it is told of its round, once.
auto restarts(std::map<std::string, std::uint32_t> when) {
  return [when = std::move(when)](const std::string& site, bool up, const transport::Message& message) mutable {
    const auto due = when.find(site);
    if (up || due == when.end() || !std::holds_alternative<transport::RoundStart>(message) || round_of(message) != due->second) return Federation::Fate::kArrives;
    when.erase(due);
    return Federation::Fate::kRestart;
  };
}

TEST(MaskedRounds, AModelThatNoSumIsPublishedForEndsEverySitesPart) {
  Federation federation(5);
  federation.publish_sums();
  federation.publish = [](std::optional<Bytes>) { return std::nullopt; };
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 5u);
  for (const auto& [site, why] : federation.stops) EXPECT_THAT(why, HasSubstr("no published sum leads from this site's model of round 1")) << site;
}

TEST(MaskedRounds, AModelThatNobodyCouldMakeIsNeverSummed) {
  // The coordinator waits until every site has lost its model.
  Federation federation(5);
  federation.publish_sums();
  federation.options.max_void_rounds = 2;
  std::set<std::string> reasons;
  auto all = restarts({{"site-0", 2}, {"site-1", 2}, {"site-2", 2}, {"site-3", 2}, {"site-4", 2}});
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    if (const auto* refused = std::get_if<transport::Refused>(&message); refused && up) reasons.insert(refused->reason);
    return all(site, up, message);
  };
  federation.run(true);
  EXPECT_EQ(federation.records[0].outcome, "complete");
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto r : {1, 2}) EXPECT_EQ(federation.records[std::size_t(r)].outcome, "void");
  ASSERT_EQ(reasons.size(), 1u);
  EXPECT_THAT(*reasons.begin(), HasSubstr("this node could not make the model itself, and 0 others did; more than 0 are needed"));
}

TEST(MaskedRounds, MoveTheModelByTheServersRateAtEverySite) {
  Federation federation(4);
  federation.publish_sums();
  federation.options.learning_rate = 0.5;
  const auto made = federation.run(true);
  EXPECT_EQ(federation.whole, 4);
  EXPECT_THAT(federation.stops, IsEmpty());
  EXPECT_EQ(hex(made), hex(federation.run(false)));
}

TEST(MaskedRounds, SitesThatForgotTheirModelsRelyOnOthersAndThenVouchAgain) {
  // Nothing is kept in files. In the end no site has a model that it made from the first one by itself.
  Federation federation(4);
  federation.publish_sums();
  federation.options.rounds = 7;
  federation.fate = restarts({{"site-0", 2}, {"site-1", 3}, {"site-2", 4}, {"site-3", 5}});
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 7u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.round << ": " << record.refused;
  EXPECT_EQ(federation.whole, 4 + 4);
  EXPECT_THAT(federation.stops, IsEmpty());
}

TEST(MaskedRounds, SitesThatAllRestartAtOnceStillHaveTheirModels) {
  Federation federation(4);
  federation.publish_sums();
  federation.durable = true;
  federation.fate = restarts({{"site-0", 2}, {"site-1", 2}, {"site-2", 2}, {"site-3", 2}});
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 3u);
  for (const auto& record : federation.records) EXPECT_EQ(record.outcome, "complete") << record.round << ": " << record.refused;
  EXPECT_EQ(federation.whole, 4) << "none is fetched again";
}

TEST(MaskedRounds, AnUpdateOfOneModelIsNeverMaskedForTheSessionOfAnother) {
  // Keys and shares of round 2 are exchanged for the true model; then site-2 alone is told of another, which it has:
  // were it to train that one, its masks would cancel, and others would vouch for it.
  Federation federation(5);
  federation.publish_sums();
  bool shared = false;
  std::optional<transport::RoundStart> first;
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    const bool fetches = site == "site-2" && up && std::holds_alternative<transport::Fetch>(message);
    return fetches && first && !shared ? Federation::Fate::kLater : Federation::Fate::kArrives;
  };
  federation.inject = [&](const std::string& site, const transport::Message& behind) -> std::vector<transport::Message> {
    if (const auto* start = std::get_if<transport::RoundStart>(&behind); start && site == "site-2" && start->round == 1) first = *start;
    if (site != "site-2" || inner(behind) != 3 || round_of(behind) != 2 || shared) return {};
    shared = true;
    auto crafted = *first;
    crafted.round = 2;
    return {crafted};
  };
  federation.options.rounds = 2;
  shared = true;  // round 1 is honest
  const auto honest = federation.inject;
  federation.inject = [&](const std::string& site, const transport::Message& behind) {
    if (const auto* start = std::get_if<transport::RoundStart>(&behind); start && start->round == 2) shared = false;
    return honest(site, behind);
  };
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 2u);
  EXPECT_TRUE(shared);
  EXPECT_THAT(federation.records[1].missing["site-2"], HasSubstr("another model than the one that this site was given"));
  EXPECT_EQ(federation.records[1].accepted.size(), 4u);
}

TEST(MaskedRounds, MoreSitesThanASumHasRoomForAreAskedInTurnByNameSoThatModelsCanBeMade) {
  Federation federation(9);  // the ring is for eight
  federation.publish_sums();
  federation.options.rounds = 5;
  federation.run(true);
  ASSERT_EQ(federation.records.size(), 5u);
  for (const auto& record : federation.records) EXPECT_EQ(record.accepted.size(), 8u) << record.refused;
}

TEST(MaskedRounds, LetNothingOfASiteOutInTheClear) {
  Federation federation(4);
  federation.run(true);
  for (const auto& message : federation.up) {
    if (const auto* ready = std::get_if<transport::Ready>(&message)) {
      EXPECT_EQ(ready->train_samples, 1u);
    }
    if (const auto* offer = std::get_if<transport::UpdateOffer>(&message)) {
      EXPECT_EQ(offer->samples, 0u);
      EXPECT_EQ(offer->train_loss, 0);
    }
  }
  ASSERT_EQ(federation.reports.size(), 4u);
  for (const auto& [name, report] : federation.reports) {
    EXPECT_EQ(report.verdict, "kept at the site");
    EXPECT_EQ(report.train, 0u);
    EXPECT_FALSE(report.global_auc.defined);
  }
}

/// A site is lost in round 2 when it is about to say (or hear) something; the unmasked run loses it where its
/// update is as much or as little in the sum.
TEST(MaskedRounds, SumExactlyTheSurvivorsWhereverASiteIsLost) {
  struct { const char* what; bool up; int inner; bool counted; } const cases[] = {
      {"its keys", true, 1, false},       {"the roll", false, 2, false},        {"its shares", true, 3, false},
      {"others' shares", false, 3, false}, {"the survivors", false, 4, true},    {"its confirmation", true, 5, true},
      {"the confirmations", false, 6, true}, {"its unmasking shares", true, 7, true}};
  for (const auto& c : cases) {
    Federation federation(5);
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      const bool here = site == "site-3" && up == c.up && inner(message) == c.inner && round_of(message) == 2;
      return here ? Federation::Fate::kLost : Federation::Fate::kArrives;
    };
    const auto masked = federation.run(true);
    ASSERT_EQ(federation.records.size(), 3u);
    EXPECT_EQ(federation.records[1].accepted.size(), c.counted ? 5u : 4u) << c.what;
    EXPECT_NE(federation.records[1].outcome, "void") << c.what << federation.records[1].refused;
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      const bool offers = up && std::holds_alternative<transport::UpdateOffer>(message) && round_of(message) == 2;
      const bool starts = !up && std::holds_alternative<transport::RoundStart>(message) && round_of(message) == 3;
      return site == "site-3" && (c.counted ? starts : offers) ? Federation::Fate::kLost : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(masked), hex(federation.run(false))) << c.what;
  }
}

TEST(MaskedRounds, SurviveABrokenConnectionAtEveryMessage) {
  Federation federation(4);
  federation.publish_sums();
  const auto unbroken = federation.run(true);
  int total = 0;
  federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
    if (site == "site-1" && round_of(message) == 2) ++total;
    return Federation::Fate::kArrives;
  };
  federation.run(true);
  ASSERT_GE(total, 10);
  for (int breaks = 1; breaks <= total; ++breaks) {
    int seen = 0;
    federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
      const bool here = site == "site-1" && round_of(message) == 2 && ++seen == breaks;
      return here ? Federation::Fate::kCut : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(federation.run(true)), hex(unbroken)) << "cut at message " << breaks;
    EXPECT_EQ(federation.records[1].outcome, "complete") << breaks;
  }
}

TEST(MaskedRounds, SurviveADaemonsRestartAtEveryMessageWithTheSameBytes) {
  Federation federation(4);
  federation.options.rounds = 1;
  federation.durable = true;
  const auto unbroken = federation.run(true);
  int total = 0;
  federation.fate = [&](const std::string& site, bool, const transport::Message& message) {
    total += site == "site-1" && round_of(message) == 1;
    return Federation::Fate::kArrives;
  };
  federation.run(true);
  for (int breaks = 1; breaks <= total; ++breaks) {
    int seen = 0;
    std::set<Digest> offered;
    federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
      if (const auto* offer = std::get_if<transport::UpdateOffer>(&message); offer && up && site == "site-1") offered.insert(offer->update);
      const bool here = site == "site-1" && round_of(message) == 1 && ++seen == breaks;
      return here ? Federation::Fate::kRestart : Federation::Fate::kArrives;
    };
    EXPECT_EQ(hex(federation.run(true)), hex(unbroken)) << "restarted at message " << breaks;
    EXPECT_EQ(federation.records[0].outcome, "complete") << breaks;
    EXPECT_EQ(offered.size(), 1u) << breaks;
  }
}

TEST(MaskedRounds, AreVoidWithAReasonWhenTooFewAreLeft) {
  Federation federation(3);
  federation.fate = [&](const std::string& site, bool up, const transport::Message& message) {
    return site == "site-0" && up && inner(message) == 3 && round_of(message) == 1 ? Federation::Fate::kLost : Federation::Fate::kArrives;
  };
  federation.run(true);
  ASSERT_FALSE(federation.records.empty());
  EXPECT_EQ(federation.records[0].outcome, "void");
  EXPECT_THAT(federation.records[0].refused, HasSubstr("2 of 3 members shared; 3 are needed"));
}

TEST(MaskedRounds, ASiteRefusesAnInvitationOnOtherTermsAndIsNamed) {
  struct { const char* rule; std::function<void(privacy::SessionContext&)> change; } const cases[] = {
      {"other terms", [](auto& c) { c.colluders = 1; }},
      {"another plan", [](auto& c) { c.plan = sha256("of another first model"); }},
      {"other terms", [](auto& c) { c.vectors.pop_back(); }},
  };
  for (const auto& [rule, change] : cases) {
    Federation federation(4);
    change(federation.context);
    federation.options.rounds = 1;
    federation.run(true);
    ASSERT_FALSE(federation.records.empty());
    EXPECT_EQ(federation.records[0].outcome, "void");
    ASSERT_EQ(federation.records[0].missing.size(), 4u);
    for (const auto& [site, why] : federation.records[0].missing) EXPECT_THAT(why, HasSubstr(rule));
  }
}

TEST(MaskedRounds, AModelForOneSiteAloneIsRefusedByIt) {
  // The coordinator shows site-2 a model of its own; the invitation, which all share, tells it.
  Federation federation(5);
  federation.tamper = [&](const std::string& site, transport::Message& message) {
    if (auto* start = std::get_if<transport::RoundStart>(&message); start && site == "site-2") start->model = sha256("crafted");
  };
  federation.options.rounds = 1;
  federation.run(true);
  ASSERT_FALSE(federation.records.empty());
  EXPECT_THAT(federation.records[0].missing["site-2"], HasSubstr("another model than the one that this site was given"));
  EXPECT_EQ(federation.records[0].accepted.size(), 4u);
}

TEST(MaskedRounds, ANodesFloorStopsAPlanBelowIt) {
  Federation federation(3);
  federation.limits.k_min = 5;
  federation.options.join_deadline = std::chrono::seconds(1);
  federation.run(true);
  ASSERT_EQ(federation.stops.size(), 3u);
  for (const auto& [site, why] : federation.stops) EXPECT_THAT(why, HasSubstr("limits.secure_aggregation.k_min is 5"));
}

}  // namespace
}  // namespace preceptor
