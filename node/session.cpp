#include "node/session.h"

#include <algorithm>
#include <charconv>

namespace preceptor::node {

using namespace transport;

namespace {

/// nullopt: not 64 hexadecimal digits.
std::optional<Digest> parse_digest(const std::string& text) {
  Digest digest{};
  if (text.size() != 2 * digest.size()) return std::nullopt;
  for (std::size_t i = 0; i < digest.size(); ++i) {
    const char* pair = text.data() + 2 * i;
    std::uint8_t value = 0;
    if (std::from_chars(pair, pair + 2, value, 16).ptr != pair + 2) return std::nullopt;
    digest[i] = std::byte(value);
  }
  return digest;
}

}  // namespace

Effects Session::step(Event event, Time) {
  effects_.clear();
  if (phase_ == Phase::kStopped) return {};
  if (std::holds_alternative<Connected>(event)) {
    connected_ = true;
    send(Hello{kProtocolMinor});
  } else if (std::holds_alternative<Disconnected>(event)) {
    connected_ = false;
  } else if (auto* heard = std::get_if<Heard>(&event)) {
    std::visit([&](auto& message) { hear(message); }, heard->message);
  } else if (auto* ready = std::get_if<PlanReady>(&event)) {
    plan_ready(*ready);
  } else if (auto* done = std::get_if<Trained>(&event)) {
    trained(*done);
  } else if (auto* model = std::get_if<Patched>(&event)) {
    patched(*model);
  } else if (auto* judged = std::get_if<Judged>(&event)) {
    if (!judged->why.empty()) {
      stop(false, "the verdict failed: " + judged->why);
    } else {
      report_ = std::move(judged->report);
      if (masking_.on()) {  // the verdict stays at the site
        report_.emplace();
        report_->verdict = "kept at the site";
      }
      phase_ = Phase::kReporting;
      send(*report_);
    }
  }
  take_up_work();
  return std::move(effects_);
}

void Session::hear(Welcome& welcome) {
  if (!planned_ && phase_ == Phase::kIdle) {
    phase_ = Phase::kReadingPlan;
    effects_.push_back(ReadPlan{std::move(welcome.plan)});
    return;
  }
  // A new connection in mid-job: what was under way goes on.
  if (planned_) send(ready());
  if (receiver_) {
    receiver_->resume();
    ask();
  }
  if (phase_ == Phase::kOffering) send(*offer_);
  if (phase_ == Phase::kReporting) send(*report_);
}

void Session::plan_ready(PlanReady& answer) {
  if (!answer.accepted) return stop(false, "the plan is refused: " + answer.why);
  if (answer.masking)
    if (auto begun = masking_.begin(std::move(*answer.masking)); !begun) return stop(false, "the plan is refused: " + begun.error().message);
  if (answer.sums) {
    const auto initial = parse_digest(answer.sums->initial);
    if (!initial) return stop(false, "the plan is refused: initial is not 64 hexadecimal digits");
    sums_ = {*initial, answer.sums->bytes, answer.sums->rounds};
    if (auto kept = masking_.kept_model()) held_ = std::move(*kept);
  }
  planned_ = true;
  phase_ = Phase::kReady;
  send(ready());
  if (answer.teacher_sha256.empty()) return;
  teacher_ = parse_digest(answer.teacher_sha256);
  if (!teacher_) return stop(false, "the plan is refused: its teacher's sha256 is not 64 hexadecimal digits");
  fetch(*teacher_, answer.teacher_bytes);
}

/// Under masks nobody learns how many images a site has: its weight is in the sums.
Ready Session::ready() const { return {masking_.on() ? std::min<std::uint64_t>(train_samples_, 1) : train_samples_}; }

void Session::hear(RoundStart& start) {
  if (!planned_) return;  // told again after Ready
  if (start.round == 0 || (sums_ && start.round > sums_->rounds)) return stop(false, fmt::format("the coordinator speaks of round {}; the plan has no such round", start.round));
  if (round_ && round_->round == start.round) return;  // repeated after a reconnect
  next_round_ = start;
  if (phase_ == Phase::kMasking) settle(false, "the round closed without it");
}

void Session::hear(Finish& finish) {
  if (!planned_) return;
  if (sums_ && finish.rounds > sums_->rounds) return stop(false, fmt::format("the coordinator ends after round {}; the plan has no such round", finish.rounds));
  if (phase_ != Phase::kJudging && phase_ != Phase::kReporting) finish_ = finish;
  if (phase_ == Phase::kMasking) settle(false, "the round closed without it");
  masking_.end();
}

/// Starts what was told last, as soon as nothing else is under way. The newest word wins: a round that this
/// site missed is not made up for. An open offer is answered first: its update may be in the sum.
void Session::take_up_work() {
  if (phase_ != Phase::kReady || teacher_ || !planned_) return;
  if (!finish_ && !next_round_) return;
  const auto wanted = finish_ ? finish_->model : next_round_->model;
  if (coming_ && coming_->model == wanted) return;
  receiver_.reset();  // of what was wanted before
  coming_ = Coming{wanted, finish_ ? finish_->model_bytes : next_round_->model_bytes, {}, {}};
  fetch_model();
}

/// The round that the next model is for.
std::uint32_t Session::wanted_for() const { return finish_ ? finish_->rounds + 1 : next_round_->round; }

/// Whether a patch may come behind others that have `bytes_before` together, the last of a round before `after`: each
/// round moves the model once. Together they are shorter than the model, but for a single sum.
bool Session::follows(const ModelPatch& patch, std::uint32_t after, std::uint64_t bytes_before) const {
  if (patch.round < after || patch.round >= wanted_for()) return false;
  if (sums_ && patch.bytes != sums_->bytes) return false;
  if (sums_ && bytes_before == 0) return true;
  return patch.bytes > 0 && patch.bytes < coming_->bytes && bytes_before < coming_->bytes - patch.bytes;
}

/// By the cheapest way: it is here already, patches lead to it, or whole.
void Session::fetch_model() {
  if (held_.blob && held_.digest == coming_->model) return use(held_.blob, held_.recomputed);
  const auto& patches = finish_ ? finish_->patches : next_round_->patches;
  const auto first = held_.blob ? std::ranges::find(patches, held_.digest, &ModelPatch::base) : patches.end();
  std::uint64_t bytes = 0;
  bool sound = first != patches.end();
  auto after = held_.round;
  for (auto patch = first; patch != patches.end() && sound; ++patch) {
    sound = follows(*patch, after, bytes);
    bytes += patch->bytes;
    after = patch->round + 1;
  }
  if (sound) {
    coming_->patches.assign(first, patches.end());
    return fetch_patch();
  }
  // The newest sum is always published: who was there in the round before can make the model.
  if (sums_ && held_.recomputed && wanted_for() <= held_.round + 1 && coming_->model != sums_->initial)
    return stop(false, fmt::format("no published sum leads from this site's model of round {} to the coordinator's of round {}", held_.round, wanted_for()));
  fetch_whole();
}

void Session::fetch_patch() {
  const auto& next = coming_->patches[coming_->deltas.size()];
  fetch(next.delta, next.bytes);
}

void Session::fetch_whole() {
  coming_->patches.clear();
  coming_->deltas.clear();
  fetch(coming_->model, coming_->bytes);
}

void Session::fetch(const Digest& blob, std::uint64_t bytes) {
  if (bytes == 0) return stop(false, "the coordinator offers an empty model");
  receiver_.emplace(blob, bytes);
  ask();
}

void Session::ask() {
  while (const auto fetch = receiver_->next()) send(*fetch);
}

void Session::hear(Chunk& chunk) {
  if (!receiver_) return;
  if (const auto taken = receiver_->accept(chunk); !taken) return stop(false, "from the coordinator: " + taken.error().message);
  if (receiver_->complete()) return arrived();
  ask();
}

void Session::arrived() {
  const auto digest = receiver_->digest();
  auto bytes = receiver_->take();
  receiver_.reset();
  if (teacher_ == digest) {
    teacher_.reset();
    effects_.push_back(UseTeacher{std::move(bytes)});
    return;
  }
  if (coming_->patches.empty()) return use(std::make_shared<const Bytes>(std::move(bytes)), sums_ && coming_->model == sums_->initial);
  coming_->deltas.push_back(std::move(bytes));
  if (coming_->deltas.size() < coming_->patches.size()) return fetch_patch();
  effects_.push_back(Patch{held_.blob, coming_->patches, std::move(coming_->deltas), coming_->model});
}

void Session::patched(Patched& answer) {
  if (!coming_ || phase_ != Phase::kReady) return;
  if (answer.model) return use(std::move(answer.model), held_.recomputed);
  if (sums_) return stop(false, "the coordinator's model is not what its published sums make of this site's: " + answer.why);
  fetch_whole();
}

void Session::use(transport::Blob model, bool recomputed) {
  const bool first = !sums_ || coming_->model == sums_->initial;
  held_ = {model, coming_->model, first ? wanted_for() : std::max(held_.round, wanted_for()), recomputed};
  coming_.reset();
  keep_model();
  if (finish_) {
    phase_ = Phase::kJudging;
    effects_.push_back(Judge{std::move(model)});
  } else {
    round_ = std::exchange(next_round_, std::nullopt);
    phase_ = Phase::kTraining;
    effects_.push_back(Train{round_->round, std::move(model), round_->architecture});
  }
}

void Session::keep_model() const {
  if (sums_ && masking_.on()) masking_.keep_model(held_);
}

void Session::trained(Trained& answer) {
  if (!answer.why.empty()) return stop(false, "training failed: " + answer.why);
  unmasked_ = std::move(answer);
  phase_ = Phase::kMasking;
  if (next_round_ || finish_) return settle(false, "the round closed without it");
  if (masking_.on()) return mask_if_ready();
  offer_update(std::move(unmasked_->update));
}

void Session::mask_if_ready() {
  if (phase_ != Phase::kMasking || !masking_.ready(unmasked_->round)) return;
  auto masked = masking_.mask(std::move(unmasked_->update), *round_, held_.recomputed);
  if (masked) return offer_update(std::move(*masked));
  send(Refused{unmasked_->round, masked.error().message});
  settle(false, masked.error().message);
}

void Session::offer_update(Bytes update) {
  auto blob = std::make_shared<const Bytes>(std::move(update));
  const auto size = blob->size();
  const bool silent = unmasked_->totals_only;
  offer_ = UpdateOffer{unmasked_->round, outbox_.put(std::move(blob)), size, round_->architecture, silent ? 0 : train_samples_,
                       silent ? 0 : unmasked_->train_loss, std::move(unmasked_->fidelity)};
  unmasked_.reset();
  phase_ = Phase::kOffering;
  send(*offer_);
}

/// Answered in any phase: keys and shares travel while this site trains, confirmations after its upload.
void Session::hear(SecureAggregation& message) {
  if (!planned_) return;  // told again after Ready
  const auto* told = next_round_ ? &*next_round_ : round_ ? &*round_ : nullptr;
  if (told && message.round != told->round) return;  // of a round that is over
  auto answer = masking_.hear(message, told);
  if (!answer) {
    send(Refused{message.round, answer.error().message});
    if (phase_ == Phase::kMasking) settle(false, answer.error().message);
    return;
  }
  if (!answer->empty()) send(SecureAggregation{message.round, std::move(*answer)});
  if (!held_.recomputed && held_.blob && masking_.vouched() == held_.digest) {
    held_.recomputed = true;
    keep_model();
  }
  mask_if_ready();
}

void Session::hear(Fetch& fetch) {
  if (auto chunk = outbox_.serve(fetch)) send(std::move(*chunk));
}

void Session::hear(Accepted& accepted) {
  if (phase_ == Phase::kOffering && accepted.update == offer_->update) settle(true, "");
}

void Session::hear(Refused& refused) {
  if (teacher_ && phase_ == Phase::kReady) return stop(false, "the plan's teacher is not to be had: " + refused.reason);
  if (phase_ == Phase::kReady && coming_ && !coming_->patches.empty()) {  // a patch that is no more
    if (!sums_ || finish_) return fetch_whole();
    coming_.reset();  // nor is the model; the next round's is told soon
    receiver_.reset();
    next_round_.reset();
    return;
  }
  if (phase_ == Phase::kOffering && refused.round == offer_->round) settle(false, refused.reason);
  if (phase_ == Phase::kMasking && refused.round == unmasked_->round) settle(false, refused.reason);
}

void Session::settle(bool accepted, const std::string& why) {
  const auto round = offer_ ? offer_->round : unmasked_->round;
  if (offer_) outbox_.drop(offer_->update);
  effects_.push_back(Settle{round, accepted, why});
  offer_.reset();
  unmasked_.reset();
  phase_ = Phase::kReady;
}

void Session::hear(Goodbye& goodbye) { stop(phase_ == Phase::kReporting, goodbye.reason); }

template <class Other>
void Session::hear(Other&) {
  stop(false, fmt::format("the coordinator sent a {}, which only nodes send", message_name(Message(Other{}))));
}

void Session::stop(bool completed, const std::string& reason) {
  phase_ = Phase::kStopped;
  effects_.push_back(Stop{completed, reason});
}

std::string Session::status() const {
  static constexpr const char* kNames[] = {"waiting for the coordinator", "reading the plan", "waiting for a round", "training", "masking",
                                           "uploading", "judging", "reporting", "stopped"};
  return fmt::format("{}{}", round_ ? fmt::format("round {}: ", round_->round) : "", kNames[int(phase_)]);
}

}  // namespace preceptor::node
