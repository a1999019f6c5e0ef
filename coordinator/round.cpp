#include "coordinator/round.h"

#include <algorithm>

namespace preceptor::coordinator {

using transport::Accepted;
using transport::Chunk;
using transport::Refused;
using transport::RoundStart;
using transport::UpdateOffer;

namespace {

void append(Round::Sends& sends, Round::Sends more) {
  std::ranges::move(more, std::back_inserter(sends));
}

}  // namespace

Round::Round(std::uint32_t number, Cohort cohort, const RoundOptions& options, const Downlink& model, const Digest& architecture,
             RoundSum& sum, Time now)
    : options_(options), model_(model), architecture_(architecture), sum_(sum) {
  record_.round = number;
  record_.started = now;
  sum_.begin(number);
  for (const auto& [name, samples] : cohort) {
    sites_[name].samples = samples;
    record_.cohort_samples += samples;
  }
  if (const auto* masking = sum_.masking()) {
    std::vector<std::string> names;
    for (const auto& [name, samples] : cohort) names.push_back(name);
    masked_.emplace(*masking, number, model_.digest(), architecture, names, now);
  }
}

Round::Sends Round::invite(Time now) const {
  Sends sends;
  for (const auto& [name, site] : sites_) append(sends, invite(name, now));
  return sends;
}

Round::Sends Round::invite(const std::string& peer, Time now) const {
  const auto left = std::max(deadline() - now, Time(0));
  Sends sends{{peer, RoundStart{record_.round, model_.digest(), model_.model()->size(), architecture_, std::uint64_t(left.count()),
                                model_.patches()}}};
  if (masked_) append(sends, masked_->said_to(peer));
  return sends;
}

Result<void> Round::admit(const Site& site, const UpdateOffer& offer) const {
  if (offer.architecture != architecture_) return fail(Code::kRefused, "its architecture is not this job's");
  return sum_.admit(offer, site.samples);
}

Round::Sends Round::refuse(const std::string& peer, Site& site, const std::string& reason) {
  site.state = State::kRefused;
  site.why = "refused: " + reason;
  site.receiver.reset();
  if (masked_) masked_->drop(peer);
  auto sends = Sends{{peer, Refused{record_.round, reason}}};
  append(sends, start_uploads());
  return sends;
}

Round::Sends Round::offered(const std::string& peer, const UpdateOffer& offer) {
  const auto found = sites_.find(peer);
  if (found == sites_.end()) return {{peer, Refused{offer.round, "not asked in this round"}}};
  auto& site = found->second;
  if (site.state == State::kAccepted) {  // the acknowledgement was lost, or a second opinion is tried
    if (site.offer->update == offer.update) return {{peer, Accepted{record_.round, offer.update}}};
    return {{peer, Refused{record_.round, "another update of this site was already accepted"}}};
  }
  if (site.state == State::kRefused) return {{peer, Refused{record_.round, site.why}}};
  if (const auto verdict = admit(site, offer); !verdict) return refuse(peer, site, verdict.error().message);
  if (masked_)
    if (const auto may = masked_->may_join(peer); !may) return refuse(peer, site, may.error().message);
  const bool same = site.offer && site.offer->update == offer.update;
  if (same && site.state == State::kQueued) return {};
  if (same && site.state == State::kUploading) {
    site.receiver->resume();
    return ask(peer, site);
  }
  if (!same) site.receiver.reset();
  site.offer = offer;
  site.state = State::kQueued;
  if (std::ranges::find(queue_, peer) == queue_.end()) queue_.push_back(peer);
  return start_uploads();
}

Round::Sends Round::start_uploads() {
  Sends sends;
  const auto uploading = [](const auto& entry) { return entry.second.state == State::kUploading; };
  while (!queue_.empty() && std::ranges::count_if(sites_, uploading) < options_.uploads) {
    const auto peer = queue_.front();
    queue_.erase(queue_.begin());
    auto& site = sites_.at(peer);
    if (site.state != State::kQueued) continue;
    site.state = State::kUploading;
    if (site.receiver)
      site.receiver->resume();  // the part that came before the connection broke is still here
    else
      site.receiver.emplace(site.offer->update, site.offer->update_bytes);
    append(sends, ask(peer, site));
  }
  return sends;
}

Round::Sends Round::ask(const std::string& peer, Site& site) const {
  Sends sends;
  while (const auto fetch = site.receiver->next()) sends.push_back({peer, *fetch});
  return sends;
}

Round::Sends Round::arrived(const std::string& peer, const Chunk& chunk) {
  const auto found = sites_.find(peer);
  if (found == sites_.end() || found->second.state != State::kUploading) return {};
  if (masked_ && !masked_->waiting_for_words()) return {};  // too late for this sum
  auto& site = found->second;
  if (const auto taken = site.receiver->accept(chunk); !taken) return refuse(peer, site, taken.error().message);
  return site.receiver->complete() ? finish_upload(peer, site) : ask(peer, site);
}

Round::Sends Round::finish_upload(const std::string& peer, Site& site) {
  const auto update = site.receiver->take();
  site.receiver.reset();
  const auto folded = sum_.fold(update, site.samples, options_.max_norm);
  if (!folded) return refuse(peer, site, folded.error().message);
  if (masked_) masked_->joined(peer);
  site.state = State::kAccepted;
  record_.samples += site.samples;
  auto sends = Sends{{peer, Accepted{record_.round, site.offer->update}}};
  append(sends, start_uploads());
  return sends;
}

Round::Sends Round::left(const std::string& peer, const std::string& why) {
  const auto found = sites_.find(peer);
  if (found == sites_.end() || found->second.state == State::kAccepted || found->second.state == State::kRefused) return {};
  auto& site = found->second;
  site.why = "disconnected: " + why;
  if (site.state == State::kWaiting) return {};
  // Its slot goes to the next in line. What arrived is kept for its return, unless too many do that.
  const auto parked = [](const auto& entry) { return entry.second.state == State::kWaiting && entry.second.receiver; };
  if (std::ranges::count_if(sites_, parked) >= options_.uploads) site.receiver.reset();
  site.state = State::kWaiting;
  return start_uploads();
}

void Round::came(const std::string& peer) {
  const auto found = sites_.find(peer);
  if (found != sites_.end() && found->second.state == State::kWaiting) found->second.why = "no update before the deadline";
}

Round::Sends Round::heard(const std::string& peer, const transport::SecureAggregation& message) {
  const auto found = sites_.find(peer);
  if (!masked_ || found == sites_.end()) return {};
  if (found->second.state == State::kRefused) return {};  // the first reason stands
  auto heard = masked_->hear(peer, message);
  if (heard) return {};
  if (found->second.state == State::kAccepted) {  // its words are in the sum; others' shares must open it
    record_.lied.emplace(peer, "refused after its upload: " + heard.error().message);
    return {};
  }
  return refuse(peer, found->second, heard.error().message);
}

Round::Sends Round::declined(const std::string& peer, const std::string& why) {
  const auto found = sites_.find(peer);
  if (!masked_ || found == sites_.end()) return {};
  masked_->drop(peer);
  auto& site = found->second;
  if (site.state == State::kAccepted) return {};
  site.state = State::kRefused;
  site.why = "takes no part: " + why;
  site.receiver.reset();
  return start_uploads();
}

bool Round::uploads_over(Time now) const {
  const auto answered = [](const auto& entry) {
    return entry.second.state == State::kAccepted || entry.second.state == State::kRefused;
  };
  return now >= deadline() || std::ranges::all_of(sites_, answered);
}

Round::Sends Round::advance(Time now) {
  if (!masked_) return {};
  Sends sends;
  // Shares of the last who drops out may make the uploads complete, and the other way round.
  for (bool more = true; more;) {
    auto said = masked_->advance(now, uploads_over(now));
    const auto dropped = masked_->take_dropped();
    for (const auto& [name, why] : dropped)
      if (auto& site = sites_.at(name); site.state != State::kRefused) append(sends, refuse(name, site, why));
    more = !said.empty() || !dropped.empty();
    append(sends, std::move(said));
  }
  return sends;
}

Time Round::next_deadline() const {
  if (!masked_) return deadline();
  return masked_->deadline().value_or(deadline());
}

bool Round::over(Time now) const { return masked_ ? masked_->over() : uploads_over(now); }

RoundRecord Round::close(Time now) {
  double loss = 0;
  for (auto& [name, site] : sites_) {
    if (site.state == State::kAccepted) {
      record_.accepted.push_back(name);
      loss += site.offer->train_loss * double(site.samples);
    } else {
      record_.missing[name] = site.state == State::kUploading ? "late: the deadline passed during the upload"
                              : site.state == State::kQueued  ? "late: the deadline passed before its turn to upload"
                                                              : site.why;
    }
  }
  if (record_.samples > 0) record_.train_loss = loss / double(record_.samples);
  const bool quorum = int(record_.accepted.size()) >= options_.quorum &&
                      double(record_.samples) >= options_.quorum_share * double(record_.cohort_samples);
  record_.outcome = !quorum ? "void" : record_.missing.empty() ? "complete" : "partial";
  if (masked_) record_.lied.merge(masked_->liars());
  if (masked_ && masked_->failed()) {
    record_.outcome = "void";
    record_.refused = *masked_->failed();
  } else if (!record_.accepted.empty()) {
    judge_sum();
  }
  record_.ended = now;
  return record_;
}

void Round::judge_sum() {
  if (masked_) {
    if (auto open = sum_.unmask(masked_->aggregation()); !open) {
      record_.outcome = "void";
      record_.refused = open.error().message;
      return;
    }
  }
  const auto told = sum_.close();
  if (!told) {
    record_.outcome = "void";
    record_.refused = told.error().message;
  } else if (*told) {
    record_.train_loss = (*told)->train_loss;
    record_.pooled_auc = (*told)->pooled_auc;
    record_.fidelity = (*told)->fidelity;
  } else {
    average_fidelity();
  }
}

/// Of the offers that say the same stages as the first.
void Round::average_fidelity() {
  const std::vector<transport::StageFidelity>* first = nullptr;
  double sites = 0;
  for (const auto& [name, site] : sites_) {
    if (site.state != State::kAccepted) continue;
    const auto& said = site.offer->fidelity;
    if (!first) {
      first = &said;
      for (const auto& stage : said) record_.fidelity.push_back({stage.stage, 0, 0});
    }
    if (!std::ranges::equal(said, *first, {}, &transport::StageFidelity::stage, &transport::StageFidelity::stage)) continue;
    ++sites;
    for (std::size_t i = 0; i < said.size(); ++i) {
      record_.fidelity[i].cosine += said[i].cosine;
      record_.fidelity[i].norm_ratio += said[i].norm_ratio;
    }
  }
  for (auto& stage : record_.fidelity) {
    stage.cosine /= sites;
    stage.norm_ratio /= sites;
  }
}

Round::Sends Round::turn_away() const {
  Sends sends;
  for (const auto& [name, site] : sites_)
    if (site.state == State::kUploading || site.state == State::kQueued)
      sends.push_back({name, Refused{record_.round, record_.missing.at(name)}});
  return sends;
}

}  // namespace preceptor::coordinator
