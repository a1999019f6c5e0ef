#pragma once
#include <filesystem>
#include <memory>
#include <optional>

#include "node/held_model.h"
#include "node/options.h"
#include "privacy/secure_aggregation/party.h"
#include "transport/messages.h"

namespace preceptor::node {

/// Who this site is to the other sites, and where its sessions of secure aggregation are kept.
struct MaskingPlace {
  std::string name;  ///< as its certificate says
  std::shared_ptr<const privacy::Signer> signer;  ///< null: this site cannot mask
  std::shared_ptr<const privacy::Roster> roster;
  std::filesystem::path folder;  ///< files of mode 0600; "": none are kept (simulation)
};

/// A site's part in the secure aggregations of one job: one party at a time, of the newest round. What a node
/// must not forget (keys, answers, what is spent, the masked bytes) is written before anything leaves; a daemon
/// that starts again goes on in the same session. Part of Session; one thread.
class Masking {
 public:
  Masking(MaskingPlace place, const privacy::SecureAggregationLimits& limits) : place_(std::move(place)), limits_(limits) {}

  /// expected: of the plan, without the round's own fields. Call once, before any other. Error: kRefused, kIo.
  Result<void> begin(privacy::SessionContext expected);
  bool on() const { return expected_.has_value(); }

  /// An answer for the coordinator; empty: none. told: the round that this site was last asked to train in.
  /// Error: by which rule this site takes no part in the round.
  Result<Bytes> hear(const transport::SecureAggregation& message, const transport::RoundStart* told);
  /// Whether mask may be called for a round, or has been.
  bool ready(std::uint32_t round) const { return party_ && party_->context().round == round && (party_->ready() || party_->masked()); }
  /// packed words and totals (compression::RingCodec::pack) → the same under masks. Once masked, always these bytes.
  /// round: that the update was trained in, with its model; another session's masks are refused. recomputed: Party::mask's.
  Result<Bytes> mask(Bytes update, const transport::RoundStart& round, bool recomputed);
  /// The model of the session whose sum this site helped to open, where members vouch for it.
  std::optional<Digest> vouched() const;
  /// So that a daemon that starts again still has it. Where nothing is kept: does nothing, none.
  void keep_model(const HeldModel& model) const;
  std::optional<HeldModel> kept_model() const;
  /// No round is left: wipes the party, also what is kept of it.
  void end();

 private:
  Result<Bytes> invited(const privacy::SessionContext& context, const transport::RoundStart* told);
  Result<void> keep() const;

  MaskingPlace place_;
  privacy::SecureAggregationLimits limits_;
  std::optional<privacy::SessionContext> expected_;
  privacy::SpentUpdates spent_;
  std::optional<privacy::Party> party_;
  Bytes masked_;
};

}  // namespace preceptor::node
