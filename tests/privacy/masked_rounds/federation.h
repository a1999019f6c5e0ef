#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "compression/update/sum_step.h"
#include "coordinator/masked_sum.h"
#include "node/session.h"
#include "tests/coordinator/made.h"
#include "tests/support/temp_dir.h"

namespace preceptor::test {

using coordinator::Coordinator;
using coordinator::RoundRecord;
using namespace coordinator::test;

/// Coordinator and sessions as they are, with everything in between but the training: the masked model must be
/// the unmasked one of the same ring codec, whoever drops out when.
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
inline int inner(const transport::Message& message) {
  const auto* outer = std::get_if<transport::SecureAggregation>(&message);
  return outer ? int(privacy::decode_envelope(outer->envelope)->message.index()) : -1;
}
inline std::uint32_t round_of(const transport::Message& message) {
  if (const auto* start = std::get_if<transport::RoundStart>(&message)) return start->round;
  if (const auto* secure = std::get_if<transport::SecureAggregation>(&message)) return secure->round;
  if (const auto* offer = std::get_if<transport::UpdateOffer>(&message)) return offer->round;
  return 0;
}

/// The named site restarts when it is told of its round, once.
inline auto restarts(std::map<std::string, std::uint32_t> when) {
  return [when = std::move(when)](const std::string& site, bool up, const transport::Message& message) mutable {
    const auto due = when.find(site);
    if (up || due == when.end() || !std::holds_alternative<transport::RoundStart>(message) || round_of(message) != due->second) return Federation::Fate::kArrives;
    when.erase(due);
    return Federation::Fate::kRestart;
  };
}

}  // namespace preceptor::test
