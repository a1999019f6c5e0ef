#pragma once
#include <gmock/gmock.h>

#include <deque>

#include "node/session.h"

namespace preceptor::node::test {

using namespace transport;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

template <class E>
std::vector<E> find(const Effects& effects) {
  std::vector<E> found;
  for (const auto& effect : effects)
    if (const auto* it = std::get_if<E>(&effect)) found.push_back(*it);
  return found;
}
template <class M>
std::vector<M> sent(const Effects& effects) {
  std::vector<M> found;
  for (const auto& send : find<Send>(effects))
    if (const auto* it = std::get_if<M>(&send.message)) found.push_back(*it);
  return found;
}

inline Blob made_blob(std::size_t size, std::uint8_t fill) {
  return std::make_shared<const Bytes>(size, std::byte{fill});
}

/// A session and the coordinator's side of the talk, by hand. Models are six pieces long, so a
/// connection can break in the middle of one.
class SessionTest : public testing::Test {
 protected:
  Effects step(Event event) { return session.step(std::move(event), Time(0)); }
  Effects hear(Message message) { return step(Heard{std::move(message)}); }

  RoundStart round_start(std::uint32_t round, const Blob& model) {
    return {round, shelf.put(model), model->size(), sha256("architecture"), 60'000};
  }
  Finish finish(const Blob& model) { return {2, shelf.put(model), model->size()}; }

  /// Answers every Fetch among the effects, and those that the answers lead to. Returns the rest.
  Effects serve(Effects effects, int at_most = 1000) {
    Effects rest;
    std::deque<Effect> queue(effects.begin(), effects.end());
    while (!queue.empty()) {
      auto effect = std::move(queue.front());
      queue.pop_front();
      const auto* send = std::get_if<Send>(&effect);
      const auto* fetch = send ? std::get_if<Fetch>(&send->message) : nullptr;
      if (!fetch) {
        rest.push_back(std::move(effect));
      } else if (at_most-- > 0) {
        for (auto& next : hear(shelf.serve(*fetch).value())) queue.push_back(std::move(next));
      }
    }
    return rest;
  }

  void reach_ready() {
    step(Connected{});
    hear(Welcome{.plan = "the plan"});
    step(PlanReady{.accepted = true, .why = "", .teacher_sha256 = "", .teacher_bytes = 0});
  }
  void reach_training(std::uint32_t round = 1) {
    reach_ready();
    ASSERT_THAT(find<Train>(serve(hear(round_start(round, first)))), SizeIs(1));
  }
  UpdateOffer reach_offering(std::uint32_t round = 1) {
    reach_training(round);
    return sent<UpdateOffer>(train(round)).at(0);
  }
  Effects train(std::uint32_t round) {
    return step(Trained{round, Bytes(update->begin(), update->end()), 0.25, ""});
  }
  void reach_judging() {
    const auto offer = reach_offering();
    hear(Accepted{1, offer.update});
    ASSERT_THAT(find<Judge>(serve(hear(finish(second)))), SizeIs(1));
  }
  /// The connection breaks and comes back. Returns what the session says to the new Welcome.
  Effects reconnect() {
    EXPECT_THAT(step(Disconnected{}), IsEmpty());
    const auto effects = step(Connected{});
    EXPECT_THAT(effects, SizeIs(1));
    EXPECT_THAT(sent<Hello>(effects), SizeIs(1));
    return hear(Welcome{.plan = "the plan"});
  }
  static std::string stopped(const Effects& effects) {
    const auto stops = find<Stop>(effects);
    if (stops.size() != 1) return "no stop";
    return (stops[0].completed ? "completed: " : "failed: ") + stops[0].reason;
  }

  Session session{4708};
  BlobShelf shelf;
  const Blob first = made_blob(6 * kChunkBytes - 100, 1), second = made_blob(5 * kChunkBytes, 2);
  const Blob update = made_blob(300'000, 3);
};

}  // namespace preceptor::node::test
