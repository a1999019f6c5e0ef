#pragma once
#include <set>

#include "common/parameter_space.h"
#include "coordinator/round.h"

namespace preceptor::coordinator {

/// What happens to a coordinator. Tick: time passed.
struct Came {
  std::string peer;
};
struct Left {
  std::string peer, why;
};
struct Said {
  std::string peer;
  transport::Message message;
};
struct Evaluated {};  ///< the answer to Evaluate: the model was looked at and written down
struct Tick {};
using Event = std::variant<Came, Left, Said, Evaluated, Tick>;

/// What it wants done.
using Send = Round::Send;
struct Cut {  ///< end the connection of a peer that breaks the protocol
  std::string peer, reason;
};
struct Evaluate {  ///< measure and commit this model, then answer with Evaluated
  RoundRecord record;
  transport::Blob model;  ///< float32, flat
};
struct Finished {
  bool completed = false;  ///< false: given up, see reason
  std::string reason;
  std::map<std::string, transport::SiteReport> reports;
};
using Effect = std::variant<Send, Cut, Evaluate, Finished>;
using Effects = std::vector<Effect>;

/// The whole job as a pure state machine: gather → rounds → verdicts → finished. Sites may come, leave and
/// return at any time; whoever was welcomed is told where the job stands. One driver feeds it network events,
/// another those of a simulation; both get the same model.
class Coordinator {
 public:
  struct Job {
    std::string plan;  ///< YAML of Plan, sent to every site as it is
    std::uint64_t seed = 1;
    RoundOptions options;
    ParameterSpace space;
    RoundSum* sum = nullptr;  ///< of the plan's wire profile; outlives the coordinator
    const compression::ModelDelta* downlink = nullptr;  ///< of downlink.mode: delta, else null; outlives this
    transport::Blob initial;  ///< the student that round 1 starts from
    transport::Blob teacher;  ///< null, or what the plan's teacher reference names
  };
  explicit Coordinator(Job job);
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  Effects step(const Event& event, Time now);
  /// The next moment at which a Tick changes something.
  std::optional<Time> next_deadline() const;
  /// For progress display.
  std::string status() const;
  const transport::Blob& model() const { return downlink_->model(); }
  std::uint32_t rounds_done() const { return rounds_done_; }

 private:
  enum class Phase { kGathering, kRound, kEvaluating, kReporting, kFinished };
  struct Site {
    std::uint64_t samples = 0;  ///< once it was ready
    bool here = false;
    bool ready = false;         ///< on this connection, with images
    std::optional<transport::Accepted> accepted;  ///< its last update in a sum; the message may be lost
    std::optional<transport::SiteReport> report;
  };
  void hear(const std::string& peer, const transport::Hello& hello, Time now);
  void hear(const std::string& peer, const transport::Ready& ready, Time now);
  void hear(const std::string& peer, const transport::Fetch& fetch, Time now);
  void hear(const std::string& peer, const transport::Chunk& chunk, Time now);
  void hear(const std::string& peer, const transport::UpdateOffer& offer, Time now);
  void hear(const std::string& peer, const transport::SiteReport& report, Time now);
  void hear(const std::string& peer, const transport::SecureAggregation& message, Time now);
  void hear(const std::string& peer, const transport::Refused& refused, Time now);
  template <class Other>
  void hear(const std::string& peer, const Other& message, Time now);

  void advance(Time now);
  bool gathered(Time now) const;
  void start_round(Time now);
  void close_round(Time now);
  void start_reports(Time now);
  void finish(bool completed, const std::string& reason);
  Cohort draw_cohort() const;
  transport::Finish finish_message() const;
  void send(const std::string& peer, transport::Message message) { effects_.push_back(Send{peer, std::move(message)}); }
  void send(Round::Sends sends);

  Job job_;
  Phase phase_ = Phase::kGathering;
  transport::BlobShelf shelf_;
  std::optional<Downlink> downlink_;  ///< the global model
  std::map<std::string, Site> sites_;
  std::optional<Round> round_;
  std::uint32_t rounds_done_ = 0;
  int void_rounds_ = 0;
  Time since_{0};  ///< when this phase of gathering or reporting began
  Effects effects_;
};

}  // namespace preceptor::coordinator
