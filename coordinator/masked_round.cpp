#include "coordinator/masked_round.h"

#include <algorithm>

namespace preceptor::coordinator {

using privacy::Aggregation;
using privacy::Member;

MaskedRound::MaskedRound(const RoundSum::Masking& masking, std::uint32_t round, const Digest& model, const Digest& architecture,
                         const std::vector<std::string>& cohort, Time now)
    : round_(round), step_deadline_(masking.step_deadline), since_(now) {
  auto context = masking.context;
  context.round = round;
  context.model = model;
  context.architecture = architecture;
  context.roster = masking.roster->digest();
  context.members = cohort;
  std::ranges::sort(context.members);
  context.threshold = privacy::threshold_of(int(cohort.size()), context.colluders);
  auto made = Aggregation::create(context, *masking.roster);
  if (!made) {
    failed_ = made.error().message;
    return;
  }
  aggregation_.emplace(std::move(*made));
  Sends first;
  post(aggregation_->invite(), first);
}

void MaskedRound::post(Aggregation::Posts posts, Sends& sends) {
  for (auto& [to, envelope] : posts) {
    const auto& name = aggregation_->context().name(to);
    transport::Message message = transport::SecureAggregation{round_, std::move(envelope)};
    said_[name].push_back(message);
    sends.push_back({name, std::move(message)});
  }
}

MaskedRound::Sends MaskedRound::said_to(const std::string& peer) const {
  Sends sends;
  if (const auto said = said_.find(peer); said != said_.end() && !failed_)
    for (const auto& message : said->second) sends.push_back({peer, message});
  return sends;
}

Result<void> MaskedRound::hear(const std::string& peer, const transport::SecureAggregation& message) {
  if (failed_ || message.round != round_) return {};  // of a round that is over
  const auto member = aggregation_->context().member(peer);
  auto heard = aggregation_->hear(member, message.envelope);
  if (!heard && member != 0) gone_.insert(member);
  return heard;
}

Result<void> MaskedRound::may_join(const std::string& peer) const {
  if (!waiting_for_words()) return fail(Code::kRefused, "masked words before all shares were exchanged");
  const auto missing = aggregation_->missing();
  if (std::ranges::find(missing, aggregation_->context().member(peer)) == missing.end())
    return fail(Code::kRefused, "masked words of a site that exchanged no shares");
  return {};
}

void MaskedRound::joined(const std::string& peer) {
  if (auto done = aggregation_->joined(aggregation_->context().member(peer)); !done) throw std::logic_error(done.error().message);
}

void MaskedRound::drop(const std::string& peer) {
  if (!aggregation_) return;
  if (const auto member = aggregation_->context().member(peer); member != 0) gone_.insert(member);
}

bool MaskedRound::all_answered() const {
  return std::ranges::all_of(aggregation_->missing(), [&](Member member) { return gone_.contains(member); });
}

Result<Aggregation::Posts> MaskedRound::close_phase() {
  switch (phase()) {
    case Phase::kRoll: return aggregation_->close_roll();
    case Phase::kShares: return aggregation_->close_shares();
    case Phase::kWords: return aggregation_->close_survivors();
    case Phase::kConfirmations: return aggregation_->close_confirmations();
    case Phase::kUnmask: {
      TRY(aggregation_->close_unmask());
      return Aggregation::Posts{};
    }
    case Phase::kOpen: break;
  }
  return Aggregation::Posts{};
}

void MaskedRound::drop_others(const Aggregation::Posts& posts, const char* why) {
  const auto& context = aggregation_->context();
  for (Member m = 1; m <= context.size(); ++m)
    if (std::ranges::find(posts, m, &Aggregation::Post::to) == posts.end()) dropped_.emplace(context.name(m), why);
}

MaskedRound::Sends MaskedRound::advance(Time now, bool uploads_over) {
  Sends sends;
  while (!over()) {
    const auto before = phase();
    const bool due = before == Phase::kWords ? uploads_over : all_answered() || now >= since_ + step_deadline_;
    if (!due) break;
    auto posts = close_phase();
    if (!posts) {
      failed_ = posts.error().message;
      break;
    }
    if (before == Phase::kRoll) drop_others(*posts, "no keys in time for secure aggregation");
    if (before == Phase::kShares) drop_others(*posts, "no shares in time for secure aggregation");
    post(std::move(*posts), sends);
    since_ = now;
  }
  return sends;
}

std::map<std::string, std::string> MaskedRound::take_dropped() { return std::exchange(dropped_, {}); }

std::optional<Time> MaskedRound::deadline() const {
  if (over() || phase() == Phase::kWords) return std::nullopt;
  return since_ + step_deadline_;
}

std::map<std::string, std::string> MaskedRound::liars() const {
  std::map<std::string, std::string> named;
  if (aggregation_)
    for (const auto& [member, what] : aggregation_->liars()) named.emplace(aggregation_->context().name(member), what);
  return named;
}

}  // namespace preceptor::coordinator
