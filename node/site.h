#pragma once
#include "node/local_round.h"
#include "node/options.h"
#include "node/verdict.h"

namespace preceptor::node {

/// A hospital: its session and the work that the session asks for. The driver, daemon or simulation, moves the
/// messages and runs the long jobs on a thread of its choice, one at a time for a site.
class Site {
 public:
  /// masking: who this site is under secure aggregation. place: where a job with differential privacy keeps its ledger; without a folder such jobs are refused.
  Site(std::string name, const data::Splits& data, const LimitOptions& limits, PrivacyPlace place = {},
       MaskingPlace masking = {});

  /// A long piece of work. Answers with the event to be given back to step().
  using Job = std::function<Event(Workbench&)>;
  struct Todo {
    std::vector<transport::Message> send;
    std::optional<Job> job;
    std::optional<Stop> stop;
  };
  Todo step(Event event, Time now);

  /// Known from the first job on.
  const Plan& plan() const { return plan_; }
  const std::string& name() const { return state_.name; }
  std::uint64_t train_samples() const { return state_.data->train.size(); }
  std::string status() const { return session_.status(); }
  /// The verdict's models and report, once judged.
  const std::optional<Verdict>& verdict() const { return verdict_; }

 private:
  void act(Send& send, Todo& todo, Time now);
  void act(ReadPlan& read, Todo& todo, Time now);
  void act(UseTeacher& use, Todo& todo, Time now);
  void act(Train& train, Todo& todo, Time now);
  void act(Patch& patch, Todo& todo, Time now);
  void act(Settle& settle, Todo& todo, Time now);
  void act(Judge& judge, Todo& todo, Time now);
  void act(Stop& stop, Todo& todo, Time now);
  void run(Event event, Todo& todo, Time now);
  Result<transport::Blob> patched(const Patch& patch) const;
  Result<std::optional<PlanReady::PublishedSums>> settle_downlink(const Plan& plan, const ParameterSpace& student, const compression::RingCodec* ring);
  PlanReady weigh(const std::string& plan);

  LimitOptions limits_;
  PrivacyPlace place_;
  Session session_;
  SiteState state_;
  Plan plan_;
  std::unique_ptr<compression::ModelStep> downlink_;  ///< of a plan whose models travel as patches
  std::optional<Verdict> verdict_;
};

}  // namespace preceptor::node
