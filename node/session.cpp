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
    models_.make_from_sums({*initial, answer.sums->bytes, answer.sums->rounds}, masking_.kept_model());
  }
  planned_ = true;
  phase_ = Phase::kReady;
  send(ready());
  if (answer.teacher_sha256.empty()) return;
  teacher_ = parse_digest(answer.teacher_sha256);
  if (!teacher_) return stop(false, "the plan is refused: its teacher's sha256 is not 64 hexadecimal digits");
  if (answer.teacher_bytes == 0) return stop(false, "the plan is refused: its teacher has no bytes");
  fetch(*teacher_, answer.teacher_bytes);
}

/// Under masks nobody learns how many images a site has: its weight is in the sums.
Ready Session::ready() const { return {masking_.on() ? std::min<std::uint64_t>(train_samples_, 1) : train_samples_}; }

void Session::hear(RoundStart& start) {
  if (!planned_) return;  // told again after Ready
  if (!models_.has_round(start.round)) return stop(false, fmt::format("the coordinator speaks of round {}; the plan has no such round", start.round));
  if (round_ && round_->round == start.round) return;  // repeated after a reconnect
  next_round_ = start;
  if (phase_ == Phase::kMasking) settle(false, "the round closed without it");
}

void Session::hear(Finish& finish) {
  if (!planned_) return;
  if (finish.rounds > 0 && !models_.has_round(finish.rounds)) return stop(false, fmt::format("the coordinator ends after round {}; the plan has no such round", finish.rounds));
  if (phase_ != Phase::kJudging && phase_ != Phase::kReporting) finish_ = finish;
  if (phase_ == Phase::kMasking) settle(false, "the round closed without it");
  masking_.end();
}

/// Starts what was told last, as soon as nothing else is under way. The newest word wins: a round that this
/// site missed is not made up for. An open offer is answered first: its update may be in the sum.
void Session::take_up_work() {
  if (phase_ != Phase::kReady || teacher_ || !planned_) return;
  if (!finish_ && !next_round_) return;
  auto wanted = finish_ ? ModelSource::Wanted{finish_->model, finish_->model_bytes, finish_->rounds + 1, finish_->patches}
                        : ModelSource::Wanted{next_round_->model, next_round_->model_bytes, next_round_->round, next_round_->patches};
  if (models_.wants(wanted.model)) return;
  receiver_.reset();  // of what was wanted before
  go_on(models_.want(std::move(wanted)));
}

void Session::go_on(Result<ModelSource::Next> next) {
  if (!next) return stop(false, next.error().message);
  if (auto* patch = std::get_if<Patch>(&*next)) effects_.push_back(std::move(*patch));
  else if (const auto* get = std::get_if<ModelSource::Get>(&*next)) fetch(get->blob, get->bytes);
  else use_model();
}

void Session::fetch(const Digest& blob, std::uint64_t bytes) {
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
  go_on(models_.arrived(std::move(bytes)));
}

void Session::patched(Patched& answer) {
  if (models_.patching() && phase_ == Phase::kReady) go_on(models_.patched(std::move(answer)));
}

void Session::use_model() {
  keep_model();
  if (finish_) {
    phase_ = Phase::kJudging;
    effects_.push_back(Judge{models_.held().blob});
  } else {
    round_ = std::exchange(next_round_, std::nullopt);
    phase_ = Phase::kTraining;
    effects_.push_back(Train{round_->round, models_.held().blob, round_->architecture});
  }
}

void Session::keep_model() const {
  if (models_.makes() && masking_.on()) masking_.keep_model(models_.held());
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
  auto masked = masking_.mask(std::move(unmasked_->update), *round_, models_.held().recomputed);
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
  if (const auto model = masking_.vouched(); model && models_.vouched(*model)) keep_model();
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
  if (phase_ == Phase::kReady && models_.patching()) {  // a patch that is no more
    if (!models_.makes() || finish_) return go_on(models_.whole());
    models_.give_up();  // nor is the model; the next round's is told soon
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
