#pragma once
#include <set>

#include "common/clock.h"
#include "coordinator/round_sum.h"
#include "privacy/secure_aggregation/aggregation.h"

namespace preceptor::coordinator {

/// The exchanges of secure aggregation around a round's uploads: keys and shares while the sites train, the
/// survivors' confirmations and the unmasking after the last upload. A site that answers none in time has
/// dropped out; too few left void the round. A pure state machine, part of Round.
class MaskedRound {
 public:
  struct Send {
    std::string peer;
    transport::Message message;
  };
  using Sends = std::vector<Send>;

  MaskedRound(const RoundSum::Masking& masking, std::uint32_t round, const Digest& model, const Digest& architecture,
              const std::vector<std::string>& cohort, Time now);

  /// All that was said to a site so far: for one that came back. It answers each with the same bytes.
  Sends said_to(const std::string& peer) const;
  /// Error: why this message is refused; the site has then dropped out.
  Result<void> hear(const std::string& peer, const transport::SecureAggregation& message);
  /// Its masked words may be folded. Error: it does not take part.
  Result<void> may_join(const std::string& peer) const;
  void joined(const std::string& peer);
  /// It will not answer any more.
  void drop(const std::string& peer);

  /// Closes what everybody has answered or whose time is up. uploads_over: no update is still to come.
  Sends advance(Time now, bool uploads_over);
  /// Sites that can no longer be in the sum, each once, and why.
  std::map<std::string, std::string> take_dropped();

  bool waiting_for_words() const { return phase() == privacy::Aggregation::Phase::kWords && !failed_; }
  bool over() const { return failed_ || phase() == privacy::Aggregation::Phase::kOpen; }
  std::optional<Time> deadline() const;
  const std::optional<std::string>& failed() const { return failed_; }
  privacy::Aggregation& aggregation() { return *aggregation_; }
  std::map<std::string, std::string> liars() const;

 private:
  using Phase = privacy::Aggregation::Phase;
  Phase phase() const { return aggregation_ ? aggregation_->phase() : Phase::kRoll; }
  bool all_answered() const;
  Result<privacy::Aggregation::Posts> close_phase();
  void post(privacy::Aggregation::Posts posts, Sends& sends);
  void drop_others(const privacy::Aggregation::Posts& posts, const char* why);

  std::uint32_t round_;
  std::chrono::seconds step_deadline_;
  std::optional<privacy::Aggregation> aggregation_;
  std::optional<std::string> failed_;
  Time since_;  ///< when this phase began
  std::map<std::string, std::vector<transport::Message>> said_;
  std::set<privacy::Member> gone_;
  std::map<std::string, std::string> dropped_;
};

}  // namespace preceptor::coordinator
