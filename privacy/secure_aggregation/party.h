#pragma once
#include <map>
#include <optional>

#include "privacy/secure_aggregation/identity.h"
#include "privacy/secure_aggregation/key_agreement.h"
#include "privacy/secure_aggregation/mask_set.h"
#include "privacy/secure_aggregation/messages.h"
#include "privacy/secure_aggregation/spent_updates.h"

namespace preceptor::privacy {

/// A node's side of one secure aggregation (Bonawitz 2017, doi:10.1145/3133956.3133982): a function
/// from message to message.
///   create → advertise · Roll → Shares · Shares → (ready) · mask · Survivors → Confirmation ·
///   Confirmations → Unmask · finish
/// It trusts the coordinator with nothing but delivery. Each question is answered once: the same bytes
/// again get the same answer again, other bytes are refused, so that for each peer either the share of
/// its seed or that of its mask key leaves, never both. Any Error ends the session at this node.
///
/// The caller stores the party (store, and SpentUpdates) after each call and BEFORE what it returned
/// leaves: after a crash, restore goes on with the same keys and the same answers. Stored bytes hold secrets.
class Party {
 public:
  /// Error: kRefused, with the rule of `check` or "not a member", "session reuse", "another roster".
  /// signer, roster, spent outlive the party.
  static Result<Party> create(const SessionContext& context, const Policy& policy, std::string_view name,
                              const Signer& signer, const Roster& roster, SpentUpdates& spent);
  Party(Party&&) = default;
  Party& operator=(Party&&) = default;
  ~Party() { finish(); }

  const SessionContext& context() const { return context_; }
  const Digest& session() const { return session_; }

  /// R0, an envelope for the coordinator; the same each time.
  Bytes advertise() const { return advertisement_; }
  /// The answer to an envelope of the coordinator; empty when there is none to give (shares arrived).
  Result<Bytes> hear(std::span<const std::byte> envelope);
  /// Shares of all that take part are here: mask may be called.
  bool ready() const { return !sharers_.empty() && !masked_; }
  bool masked() const { return masked_; }
  /// Its unmasking shares were given: every condition of this node for opening the sum was met.
  bool opened() const { return opened_; }
  /// R2: hides words in place, all of context().vectors in their order, and spends the update. Words
  /// must be below 2^bits. The caller keeps the masked bytes until the round is over and resends only these.
  /// recomputed: this node made the session's model itself from what was published; it vouches for that.
  Result<void> mask(std::span<const Words> vectors, bool recomputed = false);
  /// Wipes every secret; only refusals are left.
  void finish();

  Bytes store() const;
  /// Error: kCorrupt. signer, roster and spent as of create.
  static Result<Party> restore(std::span<const std::byte> bytes, const Signer& signer, const Roster& roster,
                               SpentUpdates& spent);

 private:
  struct Answer {
    Digest question{};
    Bytes bytes;
  };
  struct Held {  ///< a peer's secrets, this node's share
    Secret<32> seed, mask_key;
  };
  Party(SessionContext context, Member self, const Signer& signer, const Roster& roster, SpentUpdates& spent);

  Result<Bytes> answer(const Roll& roll);
  Result<Bytes> answer(const Shares& shares);
  Result<Bytes> answer(const Survivors& survivors);
  Result<Bytes> answer(const Confirmations& confirmations);
  template <class Other>
  Result<Bytes> answer(const Other& message);
  Result<void> check_roll(const Roll& roll) const;
  Result<void> check_survivors(const Survivors& survivors) const;
  Result<void> check_confirmations(const Confirmations& confirmations) const;
  Result<std::vector<MaskSet>> masks() const;
  const Advertisement& of(Member member) const;
  int fewest() const { return std::max(context_.k_min, context_.threshold); }
  void wipe_keys();

  SessionContext context_;
  Digest session_{};
  Member self_ = 0;
  const Signer* signer_;
  const Roster* roster_;
  SpentUpdates* spent_;
  Secret<32> seed_, cipher_secret_, mask_secret_;
  Bytes advertisement_;  ///< sealed in its envelope
  Roll roll_;
  Digest transcript_{}, group_{};
  std::map<Member, Held> held_;
  std::vector<Member> sharers_;  ///< self among them; empty before shares arrived
  bool masked_ = false, finished_ = false, recomputed_ = false, opened_ = false;
  std::optional<Survivors> survivors_;
  std::map<std::uint8_t, Answer> answers_;  ///< by type of question
};

/// Digest by which SpentUpdates knows a session.
Digest session_name(const SessionContext& context);

}  // namespace preceptor::privacy
