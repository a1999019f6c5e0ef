#pragma once
#include <map>
#include <optional>
#include <variant>

#include "common/clock.h"
#include "coordinator/downlink.h"
#include "coordinator/masked_round.h"
#include "coordinator/options.h"
#include "coordinator/round_sum.h"
#include "transport/transfer.h"

namespace preceptor::coordinator {

/// A site that is asked, and the training images it stands for.
using Cohort = std::map<std::string, std::uint64_t>;

/// What became of a round; a line of rounds.jsonl.
struct RoundRecord {
  std::uint32_t round = 0;
  std::string outcome = "open";  ///< "complete", "partial" (a quorum, not all), "void" (no quorum)
  std::vector<std::string> accepted;
  std::map<std::string, std::string> missing;  ///< site → why its update is not in the sum
  std::uint64_t samples = 0, cohort_samples = 0;
  double train_loss = 0;  ///< sample-weighted mean of the accepted sites'
  std::string refused;    ///< why the sum as a whole was refused, which makes the round void; "": it was not
  std::vector<compression::Fidelity> fidelity;  ///< of each stage of the codec, mean over the accepted sites
  std::optional<double> pooled_auc;  ///< of the model the round began with, where the sites' totals tell
  std::map<std::string, std::string> lied;  ///< site → what its shares belied, or why it was refused after its upload
  Time started{0}, ended{0};
};

/// One round as a pure state machine: plan → collect → aggregate → (the coordinator evaluates and commits).
/// Holds no socket, thread or clock. Updates are asked for by content, a few at a time, judged, folded and
/// forgotten, so memory is the accumulator and `uploads` compressed updates, however many sites there are.
class Round {
 public:
  using Send = MaskedRound::Send;
  using Sends = std::vector<Send>;

  /// model: what the cohort trains from. It and the sum must outlive the round.
  Round(std::uint32_t number, Cohort cohort, const RoundOptions& options, const Downlink& model, const Digest& architecture, RoundSum& sum,
        Time now);

  /// Invitations to the whole cohort, or to one site that came back.
  Sends invite(Time now) const;
  Sends invite(const std::string& peer, Time now) const;

  Sends offered(const std::string& peer, const transport::UpdateOffer& offer);
  Sends arrived(const std::string& peer, const transport::Chunk& chunk);
  /// A lost peer may come back until the deadline and goes on where its upload stopped.
  Sends left(const std::string& peer, const std::string& why);
  void came(const std::string& peer);

  /// A step of secure aggregation, or a site that will take none.
  Sends heard(const std::string& peer, const transport::SecureAggregation& message);
  Sends declined(const std::string& peer, const std::string& why);
  bool masked() const { return masked_.has_value(); }
  /// Goes on with secure aggregation where all have answered or a deadline has passed.
  Sends advance(Time now);

  /// All answered, or the deadline has passed; under secure aggregation: the sum is open, or will never be.
  bool over(Time now) const;
  Time deadline() const { return record_.started + options_.deadline; }  ///< of uploads
  Time next_deadline() const;                                            ///< when advance may have to do something
  std::uint32_t number() const { return record_.round; }
  bool invited(const std::string& peer) const { return sites_.contains(peer); }
  /// Names who is missing and why, says whether there is a quorum, and judges the sum. Call once, when over.
  RoundRecord close(Time now);
  /// Answers the offers that were still open at close: no offer is left without a yes or a no.
  Sends turn_away() const;

 private:
  enum class State { kWaiting, kQueued, kUploading, kAccepted, kRefused };
  struct Site {
    std::uint64_t samples = 0;
    State state = State::kWaiting;
    std::string why = "no update before the deadline";
    std::optional<transport::UpdateOffer> offer;
    std::optional<transport::BlobReceiver> receiver;
  };
  Result<void> admit(const Site& site, const transport::UpdateOffer& offer) const;
  Sends refuse(const std::string& peer, Site& site, const std::string& reason);
  Sends ask(const std::string& peer, Site& site) const;
  Sends finish_upload(const std::string& peer, Site& site);
  Sends start_uploads();
  void judge_sum();
  void average_fidelity();
  bool uploads_over(Time now) const;

  RoundOptions options_;
  const Downlink& model_;
  Digest architecture_;
  RoundSum& sum_;
  std::optional<MaskedRound> masked_;
  std::map<std::string, Site> sites_;
  std::vector<std::string> queue_;
  RoundRecord record_;
};

}  // namespace preceptor::coordinator
