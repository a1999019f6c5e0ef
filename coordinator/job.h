#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

#include "coordinator/coordinator.h"
#include "coordinator/derive.h"
#include "plan/plan.h"
#include "training/metrics_json.h"

namespace preceptor::coordinator {

/// A whole job, as its YAML file says it.
struct JobOptions {
  std::string job = "preceptor";
  std::uint64_t seed = 1;
  data::DataOptions data;
  TeacherOptions teacher;
  StudentOptions student;
  RoundOptions federation;
  training::TrainingOptions training;  ///< of the sites; epochs: of one round
  LocalDistillation distillation;      ///< in the sites' loss
  compression::UpdateOptions update;
  PrivacyOptions privacy;
  int personalise_epochs = 3;
  template <class V>
  void visit(V& v) {
    v("job", job);
    v("seed", seed, Range{0, 9e15});
    v("data", data);
    v("teacher", teacher);
    v("student", student);
    v("federation", federation);
    v("training", training);
    v("distillation", distillation);
    v("update", update);
    v("privacy", privacy);
    v("personalise_epochs", personalise_epochs, Range{0, 1000});
  }
};

/// Bytes that crossed the wire, counted by whoever owns it.
struct WireBytes {
  std::uint64_t up = 0, down = 0;  ///< towards the coordinator, towards the sites
};

/// What only the driver of a run knows, to be merged into summary.json.
struct Extra {
  nlohmann::ordered_json run = nlohmann::ordered_json::object();
  std::map<std::string, nlohmann::ordered_json> sites;  ///< by name; that of a site without a report is left out
};

/// The coordinator's part of a run: derives the student, writes the plan, owns the state machine, measures
/// every committed model, and keeps the run directory (config.yaml, rounds.jsonl, summary.json,
/// model.safetensors). The driver, network or simulation, moves the messages.
class Job {
 public:
  /// roster: who may take part in secure aggregation. `config` is the resolved configuration to be kept and hashed. Long: trains the teacher and the student.
  static Result<std::unique_ptr<Job>> prepare(const JobOptions& options, const std::string& config, const data::Federation& federation,
                                              const std::filesystem::path& out, std::shared_ptr<const privacy::Roster> roster);

  Coordinator& machine() { return *machine_; }
  const Plan& plan() const { return plan_; }
  /// Null: there is none.
  const distill::Teacher* teacher() const { return derived_->teacher ? &*derived_->teacher : nullptr; }

  /// Measures the round's model on the consortium's validation split and adds the record to rounds.jsonl.
  /// Long; may run on another thread than machine().step, but never twice at a time.
  Result<void> commit(const Evaluate& evaluate, const WireBytes& bytes);

  /// Writes model.safetensors and summary.json.
  Result<nlohmann::ordered_json> conclude(const Finished& finished, const WireBytes& bytes, const Extra& extra);

 private:
  Job() = default;
  /// What the rounds so far have spent at most, from what the plan says.
  nlohmann::ordered_json privacy_spent(int rounds) const;
  Result<void> settle_downlink();
  Result<void> size_ring();
  Result<void> make_codec(const ParameterSpace& space);
  Result<void> make_sum(const std::string& plan, const ParameterSpace& space);
  JobOptions options_;
  Plan plan_;
  std::string config_hash_;
  const data::Federation* federation_ = nullptr;
  std::filesystem::path out_;
  std::optional<Derived> derived_;
  std::optional<compression::UpdateCodec> codec_;  ///< of the plain profile
  std::optional<compression::RingCodec> ring_;     ///< of the secure one
  std::shared_ptr<const privacy::Roster> roster_;
  std::unique_ptr<RoundSum> sum_;
  std::optional<compression::ModelDelta> downlink_;  ///< of downlink.mode: delta
  std::unique_ptr<Coordinator> machine_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::uint64_t accepted_updates_ = 0;
  int partial_rounds_ = 0, void_rounds_ = 0;
};

/// {"auc": …, "auc_low": …, "auc_high": …, "accuracy": …}; null where a metric is not defined.
using training::to_json;
nlohmann::ordered_json to_json(const transport::SiteReport& report);
/// {"teacher_auc": …, "teacher_auc_low": …, "teacher_accuracy": …, "teacher_dice": …}: the keys that a report has of its
/// models, for one more.
nlohmann::ordered_json to_site_json(const std::string& model, const training::Metrics& metrics);
/// Largest resident set of this process so far.
std::uint64_t peak_rss_bytes();

}  // namespace preceptor::coordinator
