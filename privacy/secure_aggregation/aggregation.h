#pragma once
#include <map>
#include <optional>

#include "privacy/secure_aggregation/identity.h"
#include "privacy/secure_aggregation/mask_set.h"
#include "privacy/secure_aggregation/messages.h"

namespace preceptor::privacy {

/// The coordinator's side of one secure aggregation: a pure state machine that relays keys and shares,
/// counts whose masked words are in the sum, and takes the masks off. The words themselves stay with
/// the caller, who adds them up in any order and any pieces, each member's whole or not at all.
///   invite → Advertisements → close_roll → Shares → close_shares → (words: joined) → close_survivors →
///   Confirmations → close_confirmations → Unmask → close_unmask → unmask each vector of the sum
/// A member's fault is that call's Error and ends the member; closing a phase with too few members
/// left is the Error that voids the session. `close_` is called once all have answered or time is up.
class Aggregation {
 public:
  struct Post {
    Member to = 0;
    Bytes envelope;
  };
  using Posts = std::vector<Post>;
  enum class Phase : std::uint8_t { kRoll = 1, kShares, kWords, kConfirmations, kUnmask, kOpen };

  /// Error: of check. roster outlives the aggregation.
  static Result<Aggregation> create(const SessionContext& context, const Roster& roster);

  const SessionContext& context() const { return context_; }
  Phase phase() const { return phase_; }
  Posts invite() const;

  /// A node's Advertisement, Shares, Confirmation or Unmask. The same again is welcome, another is
  /// not. Error: kRefused or kCorrupt, with the rule.
  Result<void> hear(Member from, std::span<const std::byte> envelope);
  /// All of the member's masked words are in the sum.
  Result<void> joined(Member member);
  /// Who still owes what this phase waits for.
  std::vector<Member> missing() const;

  Result<Posts> close_roll();
  Result<Posts> close_shares();
  Result<Posts> close_survivors();
  Result<Posts> close_confirmations();
  /// Puts the secrets together from the shares, checks each against what its owner advertised, and
  /// goes on without shares that lie. Error: kUnavailable, when too few are left.
  Result<void> close_unmask();
  /// Takes all masks off words [first, first + size) of a vector's sum.
  Result<void> unmask(std::size_t vector, std::uint64_t first, Words sum);

  /// Members whose words are summed; known from close_survivors on.
  const std::vector<Member>& survivors() const { return survivors_.alive; }
  /// Member → what its shares belied. One of holder and owner lied; both are named.
  const std::map<Member, std::string>& liars() const { return liars_; }

  /// All messages so far; restore goes on in the same session.
  Bytes store() const;
  static Result<Aggregation> restore(std::span<const std::byte> bytes, const Roster& roster);

 private:
  struct Seat {
    Bytes heard[4];  ///< Advertisement, Shares, Confirmation, Unmask: envelopes, empty before
    bool joined = false;
  };
  Aggregation(SessionContext context, const Roster& roster);
  Result<void> judge(Member from, const Advertisement& advertisement) const;
  Result<void> judge(Member from, const Shares& shares) const;
  Result<void> judge(Member from, const Confirmation& confirmation) const;
  Result<void> judge(Member from, const Unmask& unmask) const;
  template <class Other>
  Result<void> judge(Member from, const Other& message) const;
  template <class T>
  T heard(Member member, int step) const {  // it was decoded when it was heard
    auto envelope = decode_envelope(seats_.at(member).heard[step]);
    return std::move(std::get<T>(envelope.value().message));
  }
  std::vector<Member> who_answered(int step) const;
  Result<void> enough(const std::vector<Member>& members, const char* did) const;
  Result<Secret<32>> open_secret(Member owner, ShareKind kind);
  Result<void> add_masks(Member owner, ShareKind kind, const Secret<32>& secret);
  const Advertisement& of(Member member) const;

  SessionContext context_;
  Digest session_{};
  const Roster* roster_;
  Phase phase_ = Phase::kRoll;
  std::map<Member, Seat> seats_;
  Roll roll_;
  std::vector<Member> sharers_;
  Digest group_{};
  Survivors survivors_;
  std::vector<MaskSet> masks_;
  std::map<Member, std::string> liars_;
};

}  // namespace preceptor::privacy
