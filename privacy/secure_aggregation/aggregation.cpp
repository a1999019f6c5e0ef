#include "privacy/secure_aggregation/aggregation.h"

#include <algorithm>
#include <set>

#include "privacy/secure_aggregation/key_agreement.h"
#include "privacy/secure_aggregation/key_schedule.h"

namespace preceptor::privacy {
namespace {

constexpr int kAdvertise = 0, kShare = 1, kConfirm = 2, kReveal = 3;

/// Which of a seat's envelopes a message is; -1: none, only coordinators send it.
int step_of(const SecureMessage& message) {
  if (std::holds_alternative<Advertisement>(message)) return kAdvertise;
  if (std::holds_alternative<Shares>(message)) return kShare;
  if (std::holds_alternative<Confirmation>(message)) return kConfirm;
  return std::holds_alternative<Unmask>(message) ? kReveal : -1;
}
constexpr Aggregation::Phase kPhaseOfStep[] = {Aggregation::Phase::kRoll, Aggregation::Phase::kShares,
                                               Aggregation::Phase::kConfirmations, Aggregation::Phase::kUnmask};

}  // namespace

Aggregation::Aggregation(SessionContext context, const Roster& roster)
    : context_(std::move(context)), session_(context_.digest()), roster_(&roster) {
  for (std::size_t i = 1; i <= context_.size(); ++i) seats_[Member(i)];
}

Result<Aggregation> Aggregation::create(const SessionContext& context, const Roster& roster) {
  if (auto checked = check(context); !checked) return std::unexpected(checked.error());
  return Aggregation(context, roster);
}

Aggregation::Posts Aggregation::invite() const {
  Posts posts;
  const auto bytes = encode(session_, Invitation{context_});
  for (const auto& [member, seat] : seats_) posts.push_back({member, bytes});
  return posts;
}

const Advertisement& Aggregation::of(Member member) const {
  return std::ranges::find(roll_.entries, member, &Roll::Entry::member)->advertisement;
}

std::vector<Member> Aggregation::who_answered(int step) const {
  std::vector<Member> members;
  for (const auto& [member, seat] : seats_)
    if (!seat.heard[step].empty()) members.push_back(member);
  return members;
}

Result<void> Aggregation::hear(Member from, std::span<const std::byte> bytes) {
  if (!context_.has(from)) return fail(Code::kRefused, "unknown member {}", from);
  auto envelope = TRY(decode_envelope(bytes));
  const auto* name = secure_message_name(envelope.message);
  if (envelope.session != session_) return fail(Code::kRefused, "{} of another context", name);
  const int step = step_of(envelope.message);
  if (step < 0) return fail(Code::kRefused, "{}: only the coordinator sends it", name);
  auto& place = seats_.at(from).heard[step];
  if (!place.empty()) {
    if (std::ranges::equal(place, bytes)) return {};
    return fail(Code::kRefused, "equivocation: a second, different {}", name);
  }
  if (phase_ != kPhaseOfStep[step])
    return fail(Code::kRefused, "{} {}", name, phase_ < kPhaseOfStep[step] ? "too early" : "too late");
  auto judged = std::visit([&](const auto& message) { return judge(from, message); }, envelope.message);
  if (!judged) return judged;
  place.assign(bytes.begin(), bytes.end());
  return {};
}

template <class Other>
Result<void> Aggregation::judge(Member, const Other&) const {
  return fail(Code::kRefused, "a message that only the coordinator sends");
}

Result<void> Aggregation::judge(Member from, const Advertisement& a) const {
  const auto& name = context_.name(from);
  for (const auto* key : {&a.cipher_key, &a.mask_key})
    if (key->size() != agreement_key_size(context_.suite)) return fail(Code::kRefused, "a key of {} bytes", key->size());
  if (a.cipher_key == a.mask_key) return fail(Code::kRefused, "one key for two purposes");
  for (const auto other : who_answered(kAdvertise)) {
    const auto theirs = heard<Advertisement>(other, kAdvertise);
    for (const auto* key : {&a.cipher_key, &a.mask_key})
      if (*key == theirs.cipher_key || *key == theirs.mask_key)
        return fail(Code::kRefused, "a key that {} has advertised", context_.name(other));
  }
  return roster_->verify(name, a.credential, advertisement_statement(session_, name, a), a.signature);
}

Result<void> Aggregation::judge(Member from, const Shares& shares) const {
  if (std::ranges::find(roll_.entries, from, &Roll::Entry::member) == roll_.entries.end())
    return fail(Code::kRefused, "shares of a member who is not on the roll");
  std::set<Member> seen;
  for (const auto& entry : shares.entries) {
    if (entry.peer == from || std::ranges::find(roll_.entries, entry.peer, &Roll::Entry::member) == roll_.entries.end())
      return fail(Code::kRefused, "a share for member {}, who is not on the roll", entry.peer);
    if (!seen.insert(entry.peer).second) return fail(Code::kRefused, "two shares for member {}", entry.peer);
  }
  if (seen.size() + 1 != roll_.entries.size())
    return fail(Code::kRefused, "{} shares for {} peers", seen.size(), roll_.entries.size() - 1);
  return {};
}

Result<void> Aggregation::judge(Member from, const Confirmation& confirmation) const {
  if (!std::ranges::binary_search(survivors_.alive, from)) return fail(Code::kRefused, "confirmation of a member who dropped out");
  return roster_->verify(context_.name(from), of(from).credential, survivors_statement(group_, survivors_, confirmation.recomputed),
                         confirmation.signature);
}

Result<void> Aggregation::judge(Member from, const Unmask& unmask) const {
  if (!std::ranges::binary_search(survivors_.alive, from)) return fail(Code::kRefused, "shares of a member who dropped out");
  std::set<Member> seen;
  for (const auto& entry : unmask.entries) {
    if (!std::ranges::binary_search(sharers_, entry.peer)) return fail(Code::kRefused, "a share of member {}, who never shared", entry.peer);
    if (!seen.insert(entry.peer).second) return fail(Code::kRefused, "two shares of {}", context_.name(entry.peer));
    const bool alive = std::ranges::binary_search(survivors_.alive, entry.peer);
    if (alive != (entry.kind == ShareKind::kSeed))
      return fail(Code::kRefused, "the wrong kind of share of {}", context_.name(entry.peer));
  }
  if (seen.size() != sharers_.size()) return fail(Code::kRefused, "{} shares of {} members", seen.size(), sharers_.size());
  return {};
}

Result<void> Aggregation::joined(Member member) {
  if (phase_ != Phase::kWords || !std::ranges::binary_search(sharers_, member))
    return fail(Code::kRefused, "masked words of a member who does not take part");
  if (std::exchange(seats_.at(member).joined, true))
    return fail(Code::kRefused, "masked words of {} twice", context_.name(member));
  return {};
}

std::vector<Member> Aggregation::missing() const {
  std::vector<Member> members;
  const auto owes = [&](Member member, int step) { return seats_.at(member).heard[step].empty(); };
  switch (phase_) {
    case Phase::kRoll:
      for (const auto& [member, seat] : seats_)
        if (owes(member, kAdvertise)) members.push_back(member);
      break;
    case Phase::kShares:
      for (const auto& [member, a] : roll_.entries)
        if (owes(member, kShare)) members.push_back(member);
      break;
    case Phase::kWords:
      for (const auto member : sharers_)
        if (!seats_.at(member).joined) members.push_back(member);
      break;
    case Phase::kConfirmations:
    case Phase::kUnmask:
      for (const auto member : survivors_.alive)
        if (owes(member, phase_ == Phase::kUnmask ? kReveal : kConfirm)) members.push_back(member);
      break;
    case Phase::kOpen: break;
  }
  return members;
}

Result<void> Aggregation::enough(const std::vector<Member>& members, const char* did) const {
  const int fewest = std::max(context_.k_min, context_.threshold);
  if (int(members.size()) < fewest)
    return fail(Code::kUnavailable, "{} of {} members {}; {} are needed (k_min {}, threshold {})", members.size(),
                context_.size(), did, fewest, context_.k_min, context_.threshold);
  return {};
}

Result<Aggregation::Posts> Aggregation::close_roll() {
  if (phase_ != Phase::kRoll) throw std::logic_error("the roll is closed");
  const auto members = who_answered(kAdvertise);
  if (auto checked = enough(members, "advertised"); !checked) return std::unexpected(checked.error());
  for (const auto member : members) roll_.entries.push_back({member, heard<Advertisement>(member, kAdvertise)});
  const auto bytes = encode(session_, roll_);
  Posts posts;
  for (const auto member : members) posts.push_back({member, bytes});
  phase_ = Phase::kShares;
  return posts;
}

Result<Aggregation::Posts> Aggregation::close_shares() {
  if (phase_ != Phase::kShares) throw std::logic_error("shares are not being waited for");
  const auto members = who_answered(kShare);
  if (auto checked = enough(members, "shared"); !checked) return std::unexpected(checked.error());
  std::map<Member, Shares> boxes;
  for (const auto from : members)
    for (auto& [to, sealed] : heard<Shares>(from, kShare).entries) boxes[to].entries.push_back({from, std::move(sealed)});
  Posts posts;
  for (const auto member : members) posts.push_back({member, encode(session_, std::move(boxes[member]))});
  sharers_ = members;
  group_ = group_of(transcript_of(session_, roll_), sharers_);
  phase_ = Phase::kWords;
  return posts;
}

Result<Aggregation::Posts> Aggregation::close_survivors() {
  if (phase_ != Phase::kWords) throw std::logic_error("masked words are not being waited for");
  Survivors survivors;
  for (const auto member : sharers_)
    (seats_.at(member).joined ? survivors.alive : survivors.dead).push_back(member);
  if (auto checked = enough(survivors.alive, "sent masked words"); !checked) return std::unexpected(checked.error());
  survivors_ = std::move(survivors);
  const auto bytes = encode(session_, survivors_);
  Posts posts;
  for (const auto member : survivors_.alive) posts.push_back({member, bytes});
  phase_ = Phase::kConfirmations;
  return posts;
}

Result<Aggregation::Posts> Aggregation::close_confirmations() {
  if (phase_ != Phase::kConfirmations) throw std::logic_error("confirmations are not being waited for");
  Confirmations confirmations;
  const auto members = who_answered(kConfirm);
  if (int(members.size()) < context_.threshold)
    return fail(Code::kUnavailable, "{} members confirmed the survivors; {} are needed", members.size(), context_.threshold);
  for (const auto member : members)
    confirmations.entries.push_back({member, heard<Confirmation>(member, kConfirm)});
  const auto bytes = encode(session_, confirmations);
  Posts posts;
  for (const auto member : survivors_.alive) posts.push_back({member, bytes});
  phase_ = Phase::kUnmask;
  return posts;
}

}  // namespace preceptor::privacy
