#pragma once
#include <set>

#include "coordinator/coordinator.h"
#include "tests/coordinator/made.h"

namespace preceptor::coordinator::test {

using namespace std::chrono_literals;
using namespace transport;

inline Blob blob_of(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return std::make_shared<const Bytes>(bytes.begin(), bytes.end());
}
inline std::span<const float> floats_of(const Blob& blob) {
  return {reinterpret_cast<const float*>(blob->data()), blob->size() / sizeof(float)};
}

/// A coordinator and sites that speak by hand, joined by lanes. Messages of one site in one
/// direction keep their order; which lane moves next is drawn from a seed.
class Hall {
 public:
  explicit Hall(RoundOptions options, std::uint64_t order = 1, bool secure = false, std::int64_t floats = 64)
      : space(made_space(floats)), order_(order, "hall") {
    if (secure) secret_sum.emplace(ring, 1);
    if (options.downlink.mode == "delta") delta.emplace(compression::ModelDelta::create(options.downlink, space).value());
    options.deadline = 100s;
    options.join_deadline = 50s;
    options.report_deadline = 200s;
    machine.emplace(
        Coordinator::Job{"rounds: 3\n", 1, options, space,
                         secure ? static_cast<RoundSum*>(&*secret_sum) : &sum, delta ? &*delta : nullptr, initial, /*teacher=*/nullptr});
  }

  /// The site comes (with `samples` images, if it is new) and says Hello.
  FakeSite& connect(const std::string& name, std::uint64_t samples = 10) {
    auto& site = sites.try_emplace(name, name, samples, codec, secret_sum ? &ring : nullptr, delta ? &*delta : nullptr).first->second;
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

  ParameterSpace space;
  compression::UpdateCodec codec = made_codec(space);
  PlainSum sum{codec, space.size()};
  compression::RingCodec ring = test::made_ring(space);
  std::optional<SecureSum> secret_sum;  ///< of the secure profile
  std::optional<compression::ModelDelta> delta;  ///< of a downlink by deltas
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

inline const std::vector<std::string> kThree{"amber", "birch", "cedar"};

}  // namespace preceptor::coordinator::test
