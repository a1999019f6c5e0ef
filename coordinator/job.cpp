#include "coordinator/job.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "common/file.h"
#include "common/log.h"
#include "common/version.h"
#include "coordinator/masked_sum.h"
#include "data/manifest.h"
#include "plan/session_context.h"
#include "privacy/secure_aggregation/secret.h"
#include "training/contract.h"

namespace preceptor::coordinator {

using Json = nlohmann::ordered_json;

namespace {

transport::Blob blob_of(const models::FlatModel& model) {
  const auto parameters = model.store();
  const auto bytes = std::as_bytes(std::span(parameters));
  return std::make_shared<const Bytes>(bytes.begin(), bytes.end());
}

Json to_json(const RoundRecord& r) {
  Json json{{"round", r.round},       {"outcome", r.outcome},     {"accepted", r.accepted},
          {"missing", r.missing},   {"samples", r.samples},     {"cohort_samples", r.cohort_samples},
          {"train_loss", r.train_loss}, {"seconds", double((r.ended - r.started).count()) / 1000}};
  if (!r.refused.empty()) json["refused"] = r.refused;
  json["fidelity"] = Json::array();
  for (const auto& stage : r.fidelity)
    json["fidelity"].push_back({{"stage", stage.stage}, {"cosine", stage.cosine}, {"norm_ratio", stage.norm_ratio}});
  if (!r.lied.empty()) json["lied"] = r.lied;
  if (r.pooled_auc) json["pooled_auc"] = *r.pooled_auc;
  return json;
}

/// Cosine of an update with the true one below which a stage of the codec gets a warning.
constexpr double kDestroyed = 0.1;

template <class Estimate>
void put(Json& json, const std::string& name, const Estimate* estimate) {
  json[name] = estimate ? Json(estimate->value) : Json();
  json[name + "_low"] = estimate ? Json(estimate->low) : Json();
  json[name + "_high"] = estimate ? Json(estimate->high) : Json();
}

}  // namespace

Json to_json(const transport::SiteReport& r) {
  Json json{{"train", r.train}, {"validation", r.validation}, {"test", r.test}};
  const auto add = [&](const char* name, const transport::Estimate& e) { put(json, name, e.defined ? &e : nullptr); };
  add("local_auc", r.local_auc);
  add("global_auc", r.global_auc);
  add("personalised_auc", r.personalised_auc);
  add("local_accuracy", r.local_accuracy);
  add("global_accuracy", r.global_accuracy);
  add("personalised_accuracy", r.personalised_accuracy);
  add("local_dice", r.local_dice);
  add("global_dice", r.global_dice);
  add("personalised_dice", r.personalised_dice);
  json["chosen"] = r.chosen;
  json["metric"] = r.metric;
  json["difference"] = r.difference;
  json["difference_low"] = r.difference_low;
  json["difference_high"] = r.difference_high;
  json["p_value"] = r.p_value;
  json["verdict"] = r.verdict;
  return json;
}

Json to_site_json(const std::string& model, const training::Metrics& m) {
  Json json;
  const auto add = [&](const char* name, const std::optional<training::Estimate>& e) { put(json, model + name, e ? &*e : nullptr); };
  add("_auc", m.auc);
  add("_accuracy", m.accuracy);
  add("_dice", m.dice);
  return json;
}

std::uint64_t peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::uint64_t(usage.ru_maxrss) * 1024;
}

Result<std::unique_ptr<Job>> Job::prepare(const JobOptions& options, const std::string& config, const data::Federation& federation,
                                          const std::filesystem::path& out, std::shared_ptr<const privacy::Roster> roster) {
  std::unique_ptr<Job> job(new Job);
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return fail(Code::kIo, "cannot make the run directory {}: {}", out.string(), error.message());
  TRY(write_file(out / "config.yaml", config));
  TRY(write_file(out / "rounds.jsonl", std::string_view()));
  job->options_ = options;
  job->config_hash_ = hex(sha256(config));
  job->federation_ = &federation;
  job->out_ = out;
  job->roster_ = std::move(roster);
  TRY(job->settle_downlink());
  TRY(job->size_ring());
  TRY(privacy::derive_noise(job->options_.privacy.differential_privacy, options.federation.rounds, options.training.epochs));
  // Every node would refuse the plan for it.
  if (options.distillation.from != "none")
    TRY(distill::check(options.distillation.loss, int(federation.consortium.test.classes.size()), /*in_rounds=*/true));
  job->derived_.emplace(TRY(derive(options.teacher, options.student, federation.consortium, options.seed)));
  auto& student = job->derived_->student;
  // Kept so that another run may start from them: teacher.path, student.path.
  const std::map<std::string, std::string> origin{{"job", options.job}, {"config_hash", job->config_hash_}};
  TRY(models::save_model(out / "student.safetensors", student, origin));
  if (job->derived_->teacher && job->derived_->teacher->model() && job->derived_->teacher_is_new)
    TRY(models::save_model(out / "teacher.safetensors", *job->derived_->teacher->model(), origin));
  const bool statistics = std::ranges::any_of(student.space().pieces(), [](const Piece& piece) { return is_statistic(piece.role); });
  TRY(check_privacy(job->options_.privacy.differential_privacy, job->options_.update, options.training, statistics));
  TRY(job->make_codec(student.space()));
  const auto& downlink = job->options_.federation.downlink;
  if (downlink.mode == "delta") job->downlink_.emplace(TRY(compression::ModelDelta::create(downlink, student.space())));

  auto& plan = job->plan_;
  const auto initial = blob_of(student);
  plan = Plan{options.job, options.seed, options.federation.rounds, student.spec(), hex(sha256(*initial)), options.training, options.distillation,
              job->options_.update, job->options_.privacy, {}, options.personalise_epochs, downlink};
  transport::Blob teacher;
  if (options.distillation.from == "teacher") {
    if (!job->derived_->teacher || !job->derived_->teacher->model())
      return fail(Code::kInvalid, "distillation.from: teacher needs a teacher of the zoo (teacher.path to a .safetensors file, or teacher.training.epochs > 0)");
    auto& model = *job->derived_->teacher->model();
    teacher = blob_of(model);
    plan.teacher = {hex(sha256(*teacher)), teacher->size(), model.spec()};
  }
  const auto text = write_options(plan);
  TRY(job->make_sum(text, student.space()));
  job->machine_ = std::make_unique<Coordinator>(Coordinator::Job{text, options.seed, job->options_.federation, student.space(),
                                                                 job->sum_.get(), job->downlink_ ? &*job->downlink_ : nullptr, initial, teacher});
  return job;
}

/// How models travel, where the options leave it open: where the coordinator sees sums only, the sites may as well see
/// that it does with them what it says.
Result<void> Job::settle_downlink() {
  auto& downlink = options_.federation.downlink;
  const bool everybody = options_.federation.cohort == 0;  // who sits out rounds has no model to start from
  const bool masked = options_.privacy.secure_aggregation.masked() && options_.update.profile == "secure";
  if (downlink.mode == "auto") downlink.mode = masked && everybody ? "sum" : "full";
  downlink.rate = options_.federation.learning_rate;
  if (masked && downlink.mode != "sum")
    spdlog::warn("federation.downlink.mode: {}: sites cannot make the models themselves, and refuse masked plans of that kind unless their "
                 "limits.secure_aggregation.recompute is false{}", downlink.mode, everybody ? "" : "; federation.cohort: 0 would allow mode: sum");
  if (downlink.mode != "sum") return {};
  if (options_.update.profile != "secure") return fail(Code::kInvalid, "federation.downlink.mode: sum needs update.profile: secure");
  if (!everybody)
    return fail(Code::kInvalid, "federation.downlink.mode: sum has every site make the model from the last rounds' sums; set federation.cohort: 0");
  return {};
}

/// Fills in what the secure profile derives from the federation's size; refuses before anything trains.
Result<void> Job::size_ring() {
  const auto& masks = options_.privacy.secure_aggregation;
  if (options_.update.profile != "secure") {
    if (masks.masked()) return fail(Code::kInvalid, "privacy.secure_aggregation.mode: masked needs update.profile: secure");
    return {};
  }
  if (masks.masked() && options_.federation.quorum < masks.k_min)
    return fail(Code::kInvalid, "federation.quorum = {} is below privacy.secure_aggregation.k_min = {}: such rounds would have no sum",
                options_.federation.quorum, masks.k_min);
  auto& ring = options_.update.ring;
  const auto& federation = options_.federation;
  if (ring.max_nodes == 0) ring.max_nodes = federation.cohort > 0 ? federation.cohort : federation.sites;
  if (ring.max_nodes < federation.quorum)
    return fail(Code::kInvalid, "update.ring.max_nodes: the sum needs room for federation.quorum = {} nodes, and {} are foreseen; set it, or federation.sites",
                federation.quorum, ring.max_nodes);
  const auto& dp = options_.privacy.differential_privacy;
  if (!dp.distributed()) ring.ring_bits = TRY(compression::ring_bits(ring));  // else when the noise is known
  const auto& images = federation_->consortium.test;
  ring.fidelity = ring.fidelity && !dp.on();
  ring.histograms = images.segmentation || dp.on() ? 0 : int(compression::histograms_of(images.classes.size()));
  return {};
}

/// Of the wire profile; fills in what noise needs.
Result<void> Job::make_codec(const ParameterSpace& space) {
  if (options_.update.profile != "secure") {
    codec_.emplace(TRY(compression::UpdateCodec::create(options_.update, space)));
    return {};
  }
  auto& ring = options_.update.ring;
  if (const auto& dp = options_.privacy.differential_privacy; dp.distributed()) {
    if (dp.mode == "hospital-distributed" && ring.beta == 0) ring.beta = std::exp(-0.5);
    auto roomy = ring;
    roomy.noise = 0;
    roomy.ring_bits = 0;
    const auto codec = TRY(compression::RingCodec::create(roomy, space));
    const auto noise = TRY(share_of_noise(dp, word_sensitivity(dp, codec, options_.training.learning_rate)));
    ring.noise = noise.deviation(std::uint32_t(ring.max_nodes));
    ring.ring_bits = TRY(compression::ring_bits(ring));
  }
  ring_.emplace(TRY(compression::RingCodec::create(ring, space)));
  return {};
}

/// The sum of the plan's wire profile. plan: as every node will read it.
Result<void> Job::make_sum(const std::string& plan, const ParameterSpace& space) {
  if (codec_) {
    sum_ = std::make_unique<PlainSum>(*codec_, space.size());
    return {};
  }
  if (!options_.privacy.secure_aggregation.masked()) {
    sum_ = std::make_unique<SecureSum>(*ring_, options_.seed);
    return {};
  }
  auto context = session_context(plan_, plan, *ring_);
  const auto run = TRY(privacy::Secret<4>::random());  // tells this run's rounds from those of another run of the job
  std::memcpy(&context.attempt, run.view().data(), sizeof context.attempt);
  sum_ = std::make_unique<MaskedSum>(*ring_, options_.seed, std::move(context), *roster_, options_.privacy.secure_aggregation.step_deadline);
  return {};
}

Json Job::privacy_spent(int rounds) const {
  const auto& dp = options_.privacy.differential_privacy;
  auto released = privacy::nominal_round(dp, options_.training.epochs);
  if (dp.distributed()) {
    const auto sensitivity = word_sensitivity(dp, *ring_, options_.training.learning_rate);
    // The same was made when the ring was sized.
    released = share_of_noise(dp, sensitivity)->mechanism(sensitivity.l2, sensitivity.l1, sensitivity.dimension, released.sampling_rate);
  }
  released.steps *= std::uint64_t(rounds);
  const auto spent = rounds > 0 ? privacy::epsilon_spent({released}, dp.delta) : privacy::Spent{};
  return {{"mode", dp.mode}, {"unit", dp.of_records() ? "image" : "hospital"}, {"epsilon", spent.epsilon}, {"delta", dp.delta},
          {"noise_multiplier", dp.noise_multiplier}, {"accountant", spent.accountant}};
}

Result<void> Job::commit(const Evaluate& evaluate, const WireBytes& bytes) {
  const auto& record = evaluate.record;
  auto json = to_json(record);
  accepted_updates_ += record.accepted.size();
  partial_rounds_ += record.outcome == "partial";
  void_rounds_ += record.outcome == "void";
  derived_->student.load({reinterpret_cast<const float*>(evaluate.model->data()), evaluate.model->size() / sizeof(float)});
  training::use_threads(options_.training.threads);
  const auto metrics = coordinator::evaluate(derived_->student, federation_->consortium.validation, options_.seed);
  json["validation"] = coordinator::to_json(metrics);
  if (options_.privacy.differential_privacy.on()) json["privacy"] = privacy_spent(int(record.round));
  json["bytes_up"] = bytes.up;
  json["bytes_down"] = bytes.down;
  std::ofstream file(out_ / "rounds.jsonl", std::ios::app);
  file << json.dump() << "\n";
  if (!file.flush()) return fail(Code::kIo, "cannot write {}: is the disk full?", (out_ / "rounds.jsonl").string());
  for (const auto& stage : record.fidelity)
    if (record.round == 1 && stage.cosine < kDestroyed)
      spdlog::warn("update codec: after stage '{}' an update has a cosine of {:.3f} with the true one: little of what the sites learn arrives; "
                   "loosen that stage", stage.stage, stage.cosine);
  std::string text;
  if (!record.refused.empty()) text += "; the sum is refused: " + record.refused;
  for (const auto& [site, why] : record.missing) text += fmt::format("; {}: {}", site, why);
  spdlog::info("round {}/{}: {}, {} updates, train loss {:.4f}{}{}", record.round, options_.federation.rounds, record.outcome, record.accepted.size(),
               record.train_loss, metrics.auc    ? fmt::format(", validation AUC {:.4f}", metrics.auc->value)
               : metrics.dice ? fmt::format(", validation Dice {:.4f}", metrics.dice->value)
                              : "",
               text);
  return {};
}

Result<Json> Job::conclude(const Finished& finished, const WireBytes& bytes, const Extra& extra) {
  auto& student = derived_->student;
  const auto& model = *machine_->model();
  student.load({reinterpret_cast<const float*>(model.data()), model.size() / sizeof(float)});
  const auto hash = model_hash(student.store());
  auto metadata = training::contract_metadata(training::make_contract(student, federation_->consortium));
  metadata.merge(std::map<std::string, std::string>{{"job", options_.job}, {"config_hash", config_hash_}, {"model_hash", hash}});
  TRY(models::save_model(out_ / "model.safetensors", student, metadata));
  const auto test = coordinator::evaluate(student, federation_->consortium.test, options_.seed);

  Json summary{{"version", kVersion},
               {"job", options_.job},
               {"completed", finished.completed},
               {"ended_because", finished.reason},
               {"config_hash", config_hash_},
               {"seed", options_.seed},
               {"rounds", machine_->rounds_done()},
               {"partial_rounds", partial_rounds_},
               {"void_rounds", void_rounds_}};
  summary["test"] = coordinator::to_json(test);
  summary["teacher"] = derived_->teacher_metrics ? coordinator::to_json(*derived_->teacher_metrics) : Json{{"auc", nullptr}};
  summary["teacher"]["parameters"] = derived_->teacher_parameters;
  summary["distilled"] = coordinator::to_json(derived_->student_metrics);
  summary["student"] = student.spec().model.name;
  summary["student_parameters"] = student.space().trainable();
  summary["student_macs"] = models::count_macs(student.network(), student.spec().task);
  if (options_.privacy.differential_privacy.on()) summary["privacy"] = privacy_spent(machine_->rounds_done());
  summary["classes"] = federation_->consortium.test.classes;
  summary["bytes_up"] = bytes.up;
  summary["bytes_down"] = bytes.down;
  summary["bytes_up_fp32"] = accepted_updates_ * student.space().size() * sizeof(float);
  summary["model_hash"] = hash;
  summary["sites"] = Json::array();
  for (const auto& [name, report] : finished.reports) {
    Json site{{"name", name}};
    site.update(coordinator::to_json(report));
    if (const auto more = extra.sites.find(name); more != extra.sites.end()) site.update(more->second);
    summary["sites"].push_back(std::move(site));
  }
  const auto& found = federation_->report;
  summary["data"] = {{"test_sha256", data::content_hash(federation_->consortium.test)}, {"skipped", found.skipped}, {"duplicates", found.duplicates}, {"notes", found.notes},
                     {"consortium_train", federation_->consortium.train.size()}};
  summary.update(extra.run);
  summary["wall_seconds"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  summary["peak_rss_bytes"] = peak_rss_bytes();
  TRY(write_file(out_ / "summary.json", summary.dump(2) + "\n"));
  return summary;
}

}  // namespace preceptor::coordinator
