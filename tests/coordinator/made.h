#pragma once
#include <gmock/gmock.h>

#include <cmath>
#include <deque>
#include <limits>

#include "common/random.h"
#include "coordinator/coordinator.h"

namespace preceptor::coordinator::test {

/// A model of about `floats` floats, with normalisation statistics between its weights.
inline ParameterSpace made_space(std::int64_t floats = 64) {
  ParameterSpace space;
  space.add("conv.weight", {floats / 2}, Role::kWeight);
  space.add("norm.running_mean", {4}, Role::kNormMean);
  space.add("fc.weight", {floats / 2}, Role::kWeight);
  space.add("fc.bias", {2}, Role::kBias);
  space.add("norm.running_var", {4}, Role::kNormVariance);
  return space;
}

/// Plain float32 on the wire: what is decoded is what was encoded, to the bit.
inline compression::UpdateCodec made_codec(const ParameterSpace& space) {
  return compression::UpdateCodec::create(
             {.weights = {}, .statistics = {}, .error_feedback = false}, space)
      .value();
}

inline Bytes encoded(const compression::UpdateCodec& codec, std::span<const float> delta) {
  compression::ErrorFeedback memory;
  return codec.encode(delta, 1, memory).value();
}

/// The secure profile, for eight nodes at most.
inline compression::RingCodec made_ring(const ParameterSpace& space) {
  return compression::RingCodec::create({.bits = 12, .max_nodes = 8, .clip = 2, .weight_cap = 20, .histograms = 1}, space).value();
}

/// The whole update of a site in the secure profile.
inline Bytes secret(const compression::RingCodec& ring, std::span<const float> delta, std::uint64_t samples, std::uint32_t round,
                    double loss = 0.5) {
  compression::ErrorFeedback memory;
  compression::Totals totals;
  totals.samples = samples;
  totals.weight = ring.weight_of(samples);
  totals.loss = loss * double(samples);
  totals.fidelity.assign(ring.stages().size(), {"", 0.75, 1.5});
  totals.scores.resize(ring.histograms());
  totals.scores[0].add(0.75f, true);
  totals.scores[0].add(0.25f, false);
  const auto words = ring.encode(delta, samples, {1, round}, RandomStream(samples, "rounding"), memory).value();
  return ring.pack({words, totals.encode()});
}

/// A reproducible difference between two models.
inline std::vector<float> made_delta(const ParameterSpace& space, std::uint64_t seed,
                                     double scale = 0.01) {
  RandomStream random(seed, "made_delta");
  std::vector<float> delta(space.size());
  for (auto& value : delta) value = float(scale * random.normal());
  return delta;
}

/// Takes the place of the float `from`, which stands once in the bytes: a value that no encoder of
/// ours would write.
inline void smuggle(Bytes& bytes, float from, float to) {
  const auto* pattern = reinterpret_cast<const std::byte*>(&from);
  const auto at = std::search(bytes.begin(), bytes.end(), pattern, pattern + sizeof from);
  ASSERT_NE(at, bytes.end());
  std::memcpy(&*at, &to, sizeof to);
}

/// The messages of one kind among those for one peer ("": for all).
template <class Message, class Effects>
std::vector<Message> sent(const Effects& effects, const std::string& peer = "") {
  std::vector<Message> found;
  const auto look = [&](const Round::Send& send) {
    const auto* message = std::get_if<Message>(&send.message);
    if (message && (peer.empty() || send.peer == peer)) found.push_back(*message);
  };
  for (const auto& effect : effects) {
    if constexpr (std::is_same_v<Effects, Round::Sends>) {
      look(effect);
    } else if (const auto* send = std::get_if<Round::Send>(&effect)) {
      look(*send);
    }
  }
  return found;
}

/// The effects of one kind.
template <class Effect>
std::vector<Effect> find(const Effects& effects) {
  std::vector<Effect> found;
  for (const auto& effect : effects)
    if (const auto* it = std::get_if<Effect>(&effect)) found.push_back(*it);
  return found;
}

/// A site that speaks the protocol by hand: fetches, "trains" (a function of its name, the round
/// and the model), offers, uploads, reports.
class FakeSite {
 public:
  FakeSite(std::string name, std::uint64_t samples, const compression::UpdateCodec& codec,
           const compression::RingCodec* ring = nullptr, const compression::ModelStep* delta = nullptr)
      : name_(std::move(name)), samples_(samples), codec_(&codec), ring_(ring), delta_(delta) {}

  transport::Message hello() const { return transport::Hello{}; }

  /// What it says to one message.
  std::vector<transport::Message> answer(const transport::Message& message) {
    using namespace transport;
    if (std::get_if<Welcome>(&message)) return {Ready{samples_}};
    if (const auto* start = std::get_if<RoundStart>(&message)) return begin(*start);
    if (const auto* finish = std::get_if<Finish>(&message)) {
      finish_ = *finish;
      return get(finish->model, finish->model_bytes, finish->patches);
    }
    if (const auto* fetch = std::get_if<Fetch>(&message)) {
      if (auto chunk = shelf_.serve(*fetch)) return {std::move(*chunk)};
      return {};
    }
    if (const auto* chunk = std::get_if<Chunk>(&message); chunk && receiver_) {
      fetched += chunk->bytes.size();
      EXPECT_TRUE(receiver_->accept(*chunk));
      if (!receiver_->complete()) return ask();
      if (!arrived()) return ask();
      const auto& model = held_;
      if (lazy && !finish_) return {};
      return finish_ ? std::vector<Message>{report()} : std::vector<Message>{train(model)};
    }
    if (const auto* yes = std::get_if<Accepted>(&message)) accepted.push_back(yes->round);
    if (const auto* no = std::get_if<Refused>(&message)) refused.push_back(no->reason);
    if (const auto* bye = std::get_if<Goodbye>(&message)) goodbye = bye->reason;
    return {};
  }

  std::vector<std::uint32_t> accepted;
  std::vector<std::string> refused;
  std::string goodbye;
  bool poisoned = false;  ///< its updates hold a value that is not finite
  bool lazy = false;      ///< fetches, but never offers
  std::uint64_t fetched = 0;  ///< bytes of models and patches
  int whole = 0, patches = 0;  ///< how often each was fetched

 private:
  std::vector<transport::Message> begin(const transport::RoundStart& start) {
    start_ = start;
    return get(start.model, start.model_bytes, start.patches);
  }
  /// The model that is promised: by patches from the one that is here, or whole.
  std::vector<transport::Message> get(const Digest& model, std::uint64_t bytes, const std::vector<transport::ModelPatch>& offered) {
    promised_ = model;
    const auto first = held_.empty() ? offered.end() : std::ranges::find(offered, sha256(held_), &transport::ModelPatch::base);
    todo_.assign(first, offered.end());
    if (todo_.empty()) receiver_.emplace(model, bytes), ++whole;
    else receiver_.emplace(todo_.front().delta, todo_.front().bytes);
    return ask();
  }
  /// Takes what the receiver has; false: the next patch is to be asked for.
  bool arrived() {
    auto bytes = receiver_->take();
    receiver_.reset();
    if (todo_.empty()) {
      held_ = std::move(bytes);
    } else {
      ++patches;
      EXPECT_TRUE(delta_->apply(bytes, todo_.front().round, {reinterpret_cast<float*>(held_.data()), held_.size() / sizeof(float)}));
      todo_.pop_front();
      if (!todo_.empty()) {
        receiver_.emplace(todo_.front().delta, todo_.front().bytes);
        return false;
      }
    }
    EXPECT_EQ(sha256(held_), promised_) << name_ << " has another model than the coordinator";
    return true;
  }
  std::vector<transport::Message> ask() {
    std::vector<transport::Message> fetches;
    while (const auto fetch = receiver_->next()) fetches.push_back(*fetch);
    return fetches;
  }
  transport::Message train(const Bytes& model) {
    std::vector<float> delta(model.size() / sizeof(float));
    std::memcpy(delta.data(), model.data(), model.size());
    RandomStream random(7, name_, {start_.round});
    for (auto& value : delta) value = float(0.01 * random.normal() - 0.1 * value);
    if (poisoned) delta.back() = 0.625f;
    auto bytes = ring_ ? secret(*ring_, delta, samples_, start_.round) : encoded(*codec_, delta);
    if (poisoned) smuggle(bytes, 0.625f, std::numeric_limits<float>::quiet_NaN());
    const auto size = bytes.size();
    const auto digest = shelf_.put(std::make_shared<const Bytes>(std::move(bytes)));
    return transport::UpdateOffer{start_.round, digest, size, start_.architecture, ring_ ? 0 : samples_, ring_ ? 0 : 0.5};
  }
  transport::Message report() const {
    transport::SiteReport report;
    report.train = samples_;
    report.verdict = "federation helped";
    return report;
  }

  std::string name_;
  std::uint64_t samples_;
  const compression::UpdateCodec* codec_;
  const compression::RingCodec* ring_;
  const compression::ModelStep* delta_;
  Bytes held_;  ///< the last model
  Digest promised_{};
  std::deque<transport::ModelPatch> todo_;
  transport::BlobShelf shelf_;
  transport::RoundStart start_;
  std::optional<transport::Finish> finish_;
  std::optional<transport::BlobReceiver> receiver_;
};

}  // namespace preceptor::coordinator::test
