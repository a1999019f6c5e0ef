#include "coordinator/coordinator.h"

#include <algorithm>
#include <cstring>

#include "common/random.h"

namespace preceptor::coordinator {

using namespace transport;

Coordinator::Coordinator(Job job) : job_(std::move(job)) {
  if (!job_.initial || job_.initial->size() != job_.space.size() * sizeof(float))
    throw std::logic_error("the initial model does not fit the parameter space");
  downlink_.emplace(job_.downlink, job_.seed, shelf_, job_.initial);
  if (job_.teacher) shelf_.put(job_.teacher);
}

Effects Coordinator::step(const Event& event, Time now) {
  effects_.clear();
  if (const auto* came = std::get_if<Came>(&event)) {
    sites_[came->peer].here = true;
    sites_[came->peer].ready = false;
    if (round_) round_->came(came->peer);
  } else if (const auto* left = std::get_if<Left>(&event)) {
    sites_[left->peer].here = sites_[left->peer].ready = false;
    if (round_) send(round_->left(left->peer, left->why));
  } else if (const auto* said = std::get_if<Said>(&event)) {
    std::visit([&](const auto& message) { hear(said->peer, message, now); }, said->message);
  } else if (std::holds_alternative<Evaluated>(event) && phase_ == Phase::kEvaluating) {
    phase_ = Phase::kGathering;
    since_ = now;
  }
  advance(now);
  return std::move(effects_);
}

void Coordinator::hear(const std::string& peer, const Hello&, Time) {
  auto& site = sites_[peer];
  site.here = true;
  if (phase_ == Phase::kFinished || site.report) return send(peer, Goodbye{"the job is over"});
  send(peer, Welcome{kProtocolMinor, job_.plan});
}

void Coordinator::hear(const std::string& peer, const Ready& ready, Time now) {
  if (ready.train_samples > Accumulator::kMaxWeight) {  // its share of the cohort would make every round void
    effects_.push_back(Cut{peer, fmt::format("it announces {} training images; at most {} can be weighed", ready.train_samples,
                                             Accumulator::kMaxWeight)});
    return;
  }
  auto& site = sites_[peer];
  site.samples = ready.train_samples;
  site.ready = site.samples > 0;
  if (phase_ == Phase::kFinished) send(peer, Goodbye{"the job is over"});
  if (phase_ == Phase::kRound && round_->invited(peer)) send(round_->invite(peer, now));
  if (phase_ == Phase::kReporting) send(peer, finish_message());
}

void Coordinator::hear(const std::string& peer, const Fetch& fetch, Time) {
  if (auto chunk = shelf_.serve(fetch))
    send(peer, std::move(*chunk));
  else
    send(peer, Refused{fetch.blob == downlink_->digest() ? rounds_done_ + 1 : rounds_done_, "no such blob here any more; wait for the next round"});
}

void Coordinator::hear(const std::string& peer, const Chunk& chunk, Time) {
  if (phase_ == Phase::kRound) send(round_->arrived(peer, chunk));
}

void Coordinator::hear(const std::string& peer, const UpdateOffer& offer, Time) {
  if (phase_ == Phase::kRound && offer.round == round_->number()) return send(round_->offered(peer, offer));
  if (const auto& last = sites_[peer].accepted; last && last->round == offer.round && last->update == offer.update)
    return send(peer, *last);
  const auto now_open = phase_ == Phase::kRound ? fmt::format("round {} is open", round_->number()) : std::string("no round is open");
  send(peer, Refused{offer.round, fmt::format("round {} is over; {}", offer.round, now_open)});
}

void Coordinator::hear(const std::string& peer, const SiteReport& report, Time) {
  const auto site = sites_.find(peer);
  const bool asked = phase_ == Phase::kReporting && site != sites_.end() && site->second.samples > 0;
  if (asked) site->second.report = report;
  send(peer, Goodbye{asked ? "the report has arrived" : "no report was asked for"});
}

void Coordinator::hear(const std::string& peer, const SecureAggregation& message, Time) {
  if (phase_ == Phase::kRound && message.round == round_->number()) send(round_->heard(peer, message));
}

void Coordinator::hear(const std::string& peer, const Refused& refused, Time) {
  if (!job_.sum->masking()) effects_.push_back(Cut{peer, "a node does not send Refused where nothing is masked"});
  else if (phase_ == Phase::kRound && refused.round == round_->number()) send(round_->declined(peer, refused.reason));
}

template <class Other>
void Coordinator::hear(const std::string& peer, const Other& message, Time) {
  effects_.push_back(Cut{peer, fmt::format("a node does not send {}", message_name(Message(message)))});
}

bool Coordinator::gathered(Time now) const {
  const auto ready = std::ranges::count_if(sites_, [](const auto& s) { return s.second.ready; });
  if (ready < job_.options.quorum) return false;
  return rounds_done_ > 0 || ready >= std::max(job_.options.sites, job_.options.quorum) || now >= job_.options.join_deadline;
}

void Coordinator::advance(Time now) {
  if (phase_ == Phase::kRound) send(round_->advance(now));
  if (phase_ == Phase::kRound && round_->over(now)) close_round(now);
  if (phase_ == Phase::kGathering) {
    if (void_rounds_ >= job_.options.max_void_rounds) {
      finish(false, fmt::format("{} rounds in a row without a quorum", void_rounds_));
    } else if (rounds_done_ == std::uint32_t(job_.options.rounds)) {
      start_reports(now);
    } else if (gathered(now)) {
      start_round(now);
    } else if (now >= since_ + job_.options.join_deadline) {
      finish(false, fmt::format("fewer than federation.quorum = {} sites were there before federation.join_deadline", job_.options.quorum));
    }
  }
  if (phase_ == Phase::kReporting) {
    const auto owed = [](const auto& entry) { return entry.second.samples > 0 && !entry.second.report; };
    if (std::ranges::none_of(sites_, owed)) finish(true, "every site reported");
    else if (now >= since_ + job_.options.report_deadline) finish(true, "report_deadline passed");
  }
}

Cohort Coordinator::draw_cohort() const {
  std::vector<std::string> names;
  for (const auto& [name, site] : sites_)
    if (site.ready) names.push_back(name);
  // Who makes each model from the last one must not sit out: where there are more sites than a sum has room for, it is
  // the same ones that are asked.
  if (job_.options.downlink.mode != "sum") RandomStream(job_.seed, "cohort", {rounds_done_ + 1}).shuffle(std::span(names));
  const auto wanted = job_.options.cohort > 0 ? std::size_t(job_.options.cohort) : names.size();
  names.resize(std::min({names.size(), wanted, job_.sum->max_nodes()}));
  Cohort cohort;
  for (const auto& name : names) cohort[name] = sites_.at(name).samples;
  return cohort;
}

void Coordinator::start_round(Time now) {
  phase_ = Phase::kRound;
  round_.emplace(rounds_done_ + 1, draw_cohort(), job_.options, *downlink_, job_.space.architecture_hash(), *job_.sum, now);
  send(round_->invite(now));
}

void Coordinator::close_round(Time now) {
  auto record = round_->close(now);
  send(round_->turn_away());
  round_.reset();
  ++rounds_done_;
  if (record.outcome == "void") {
    ++void_rounds_;
  } else {
    void_rounds_ = 0;
    const auto exact = downlink_->exact();
    job_.sum->apply(exact, job_.options.learning_rate);
    repair_variances(job_.space, exact);
    downlink_->publish(record.round, job_.options.downlink.mode == "sum" ? job_.sum->published() : std::nullopt);
  }
  phase_ = Phase::kEvaluating;
  effects_.push_back(Evaluate{std::move(record), model()});
}

void Coordinator::start_reports(Time now) {
  phase_ = Phase::kReporting;
  since_ = now;
  for (const auto& [name, site] : sites_)
    if (site.ready) send(name, finish_message());
}

void Coordinator::finish(bool completed, const std::string& reason) {
  phase_ = Phase::kFinished;
  Finished finished{completed, reason, {}};
  for (const auto& [name, site] : sites_) {
    if (site.report) finished.reports[name] = *site.report;
    else if (site.here) send(name, Goodbye{reason});
  }
  effects_.push_back(std::move(finished));
}

Finish Coordinator::finish_message() const {
  return Finish{rounds_done_, downlink_->digest(), model()->size(), downlink_->patches()};
}

void Coordinator::send(Round::Sends sends) {
  for (auto& one : sends) {
    if (const auto* accepted = std::get_if<Accepted>(&one.message)) sites_[one.peer].accepted = *accepted;
    effects_.push_back(std::move(one));
  }
}

std::optional<Time> Coordinator::next_deadline() const {
  switch (phase_) {
    case Phase::kGathering: return since_ + job_.options.join_deadline;
    case Phase::kRound: return round_->next_deadline();
    case Phase::kReporting: return since_ + job_.options.report_deadline;
    default: return std::nullopt;
  }
}

std::string Coordinator::status() const {
  static constexpr const char* kNames[] = {"gathering sites", "collecting", "evaluating", "collecting verdicts", "finished"};
  return fmt::format("round {}/{}: {}", std::min(rounds_done_ + (round_ ? 1 : 0), std::uint32_t(job_.options.rounds)), job_.options.rounds, kNames[int(phase_)]);
}

}  // namespace preceptor::coordinator
