#include "app/report_run.h"

#include <algorithm>
#include <set>

#include "app/report_json.h"
#include "common/file.h"
#include "common/hash.h"

namespace preceptor::app {
namespace {

constexpr std::uint64_t kMaxSummary = 32 << 20, kMaxRounds = 256 << 20, kMaxConfig = 4 << 20;
constexpr std::size_t kMaxLine = 16 << 20, kMaxRoundRows = 100000;
/// An object of a summary has some dozens of keys; nlohmann's ordered objects search them one by
/// one.
constexpr std::size_t kMaxSummaryKeys = 1000, kMaxLineKeys = 200000;

/// AUC, or where there is none Dice: a run has one of the two.
template <class F>
Metric main_of(const F& f, const std::string& prefix = "") {
  const auto auc = f.metric(prefix + "auc");
  return auc ? auc : f.metric(prefix + "dice");
}

template <class F>
std::optional<ModelRow> model_row(const std::optional<F>& f) {
  if (!f) return {};
  return ModelRow{f->count("images"),       f->count("parameters"),   main_of(*f),
                  f->metric("accuracy"),    f->metric("sensitivity"), f->metric("specificity"),
                  f->metric("ece"),         f->metric("iou"),         f->metric("hd95")};
}

template <class F>
SiteRow site_row(const F& f) {
  SiteRow site{f.text("name"),
               f.count("train"),
               f.count("validation"),
               f.count("test"),
               main_of(f, "teacher_"),
               main_of(f, "central_"),
               main_of(f, "local_"),
               main_of(f, "global_"),
               main_of(f, "personalised_"),
               f.text("chosen"),
               f.text("metric"),
               f.metric("difference"),
               f.number("p_value"),
               Verdict::kUntold};
  if (site.name.empty()) site.name = "(no name)";
  const auto word = f.text("verdict");
  if (word == "federation helped")
    site.verdict = Verdict::kHelped;
  else if (word == "federation harmed")
    site.verdict = Verdict::kHarmed;
  // Without test images a node still says "no difference", of no metric.
  else if (word == "no difference" && !(f.find("metric") && site.metric.empty()))
    site.verdict = Verdict::kSame;
  return site;
}

template <class F>
RoundRow round_row(const F& f, std::set<std::string>& asked) {
  RoundRow round;
  round.number = f.number("round").value_or(0);
  round.outcome = f.text("outcome");
  round.accepted = f.texts("accepted");
  round.accepted_count = round.accepted.size();
  asked.insert(round.accepted.begin(), round.accepted.end());
  if (round.accepted.size() > RoundRow::kNames) round.accepted.resize(RoundRow::kNames);
  if (const auto* missing = f.find("missing"); missing && missing->is_object()) {
    round.missing_count = missing->size();
    for (const auto& [site, why] : missing->items()) {
      asked.insert(site);
      if (round.missing.size() < RoundRow::kNames)
        round.missing.emplace_back(
            site, why.is_string() ? why.template get_ref<const std::string&>() : std::string());
    }
  } else if (missing) {
    f.flaw("missing", "is not an object");
  }
  round.samples = f.count("samples");
  round.cohort_samples = f.count("cohort_samples");
  round.train_loss = f.number("train_loss");
  if (const auto validation = f.object("validation")) round.main = main_of(*validation);
  for (const auto& stage : f.objects("fidelity", RoundRow::kNames))
    round.fidelity.push_back({stage.text("stage"), stage.number("cosine"), stage.number("norm_ratio")});
  return round;
}

void read_rounds(std::string_view text, Run& run, std::set<std::string>& asked) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const auto end = text.find('\n');
    const auto line = text.substr(0, end);
    text.remove_prefix(end == text.npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") == line.npos) continue;
    const auto where = fmt::format("rounds.jsonl line {}", number);
    if (run.rounds.size() == kMaxRoundRows || line.size() > kMaxLine)
      return add_flaw(run.flaws, where + ": more than a run writes; left out from here on");
    const auto json = parse_object<nlohmann::json>(line, kMaxLineKeys);
    if (json)
      run.rounds.push_back(round_row(Fields(*json, where + ": ", run.flaws), asked));
    else if (end == line.npos && text.empty())
      add_flaw(run.flaws, where + " is cut off, as by a crash while it was written; left out");
    else
      add_flaw(run.flaws, fmt::format("{} {}; left out", where, json.error()));
  }
  std::ranges::stable_sort(run.rounds, {}, &RoundRow::number);
}

/// A file that may be missing: then the text is empty and the page says so.
Result<std::string> read_if_there(const std::filesystem::path& path, std::uint64_t max_bytes,
                                  std::vector<std::string>& flaws) {
  auto text = read_text(path, max_bytes);
  if (text || text.error().code != Code::kNotFound) return text;
  add_flaw(flaws, path.filename().string() + " is missing");
  return std::string();
}

}  // namespace

Result<nlohmann::ordered_json> read_summary(const std::filesystem::path& run) {
  const auto path = run / "summary.json";
  const auto text = read_text(path, kMaxSummary);
  if (!text && text.error().code == Code::kNotFound)
    return fail(Code::kNotFound, "{} is not there; it is written when a run ends", path.string());
  if (!text) return std::unexpected(text.error());
  auto json = parse_object<nlohmann::ordered_json>(*text, kMaxSummaryKeys);
  if (!json) return fail(Code::kCorrupt, "{} {}", path.string(), json.error());
  return std::move(*json);
}

Result<Summary> to_summary(const nlohmann::ordered_json& json, std::vector<std::string>& flaws) {
  if (!json.is_object()) return fail(Code::kCorrupt, "summary.json is not a JSON object");
  const Fields f(json, "summary.json: ", flaws);
  Summary s;
  s.job = f.text("job");
  s.ended_because = f.text("ended_because");
  s.config_hash = f.text("config_hash");
  s.model_hash = f.text("model_hash");
  s.student = f.text("student");
  s.version = f.text("version");
  s.completed = f.flag("completed");
  s.seed = f.count("seed");
  s.rounds = f.count("rounds");
  s.partial_rounds = f.count("partial_rounds");
  s.void_rounds = f.count("void_rounds");
  s.macs = f.count("student_macs");
  s.threads = f.count("threads");
  s.bytes_up = f.count("bytes_up");
  s.bytes_down = f.count("bytes_down");
  s.bytes_up_fp32 = f.count("bytes_up_fp32");
  s.peak_rss_bytes = f.count("peak_rss_bytes");
  s.wall_seconds = f.number("wall_seconds");
  s.classes = f.texts("classes");
  s.teacher = model_row(f.object("teacher"));
  s.distilled = model_row(f.object("distilled"));
  s.central = model_row(f.object("central"));
  s.federated = model_row(f.object("test"));
  for (auto* student : {&s.distilled, &s.central, &s.federated})
    if (*student) (*student)->parameters = f.count("student_parameters");
  if (const auto* sites = f.find("sites")) {
    if (!sites->is_array()) return fail(Code::kCorrupt, "summary.json: sites is not a list");
    for (const auto& site : *sites) {
      const auto where = fmt::format("summary.json: sites[{}]", s.sites.size());
      if (!site.is_object()) return fail(Code::kCorrupt, "{} is not an object", where);
      s.sites.push_back(site_row(Fields(site, where + ".", flaws)));
    }
  }
  const auto judged_by_dice = [](const auto& row) { return row && row->iou; };
  s.segmentation = judged_by_dice(s.federated) || judged_by_dice(s.teacher) ||
                   std::ranges::any_of(s.sites, [](const auto& site) { return site.metric == "dice"; });
  if (const auto data = f.object("data")) {
    s.skipped = data->texts("skipped");
    s.notes = data->texts("notes");
    s.duplicates = data->count("duplicates");
    s.consortium_train = data->count("consortium_train");
  }
  return s;
}

const char* main_metric(const Summary& summary) { return summary.segmentation ? "Dice" : "AUC"; }

std::vector<SiteModel> site_models(const std::vector<SiteRow>& sites) {
  const SiteModel all[] = {
      {"Teacher", "the consortium’s large model", &SiteRow::teacher},
      {"Central", "the student, trained on all sites’ images in one place", &SiteRow::central},
      {"Local", "trained on the site’s own images alone, for as many epochs", &SiteRow::local},
      {"Global", "the federation’s last model", &SiteRow::global},
      {"Personalised", "global, fine-tuned on the site’s own images", &SiteRow::personalised}};
  std::vector<SiteModel> models;
  for (const auto& model : all) {
    const bool always = model.metric != &SiteRow::teacher && model.metric != &SiteRow::central;
    if (always || std::ranges::any_of(sites, [&](const auto& s) { return (s.*model.metric).has_value(); }))
      models.push_back(model);
  }
  return models;
}

Result<Run> read_run(const std::filesystem::path& path) {
  Run run;
  const auto summary = TRY(read_summary(path));
  run.summary = TRY(to_summary(summary, run.flaws));
  run.config = TRY(read_if_there(path / "config.yaml", kMaxConfig, run.flaws));
  if (!run.config.empty() && !run.summary.config_hash.empty())
    run.config_matches = hex(sha256(run.config)) == run.summary.config_hash;
  std::set<std::string> asked;
  const auto rounds = TRY(read_if_there(path / "rounds.jsonl", kMaxRounds, run.flaws));
  read_rounds(rounds, run, asked);
  for (const auto& site : run.summary.sites) asked.erase(site.name);
  run.silent.assign(asked.begin(), asked.end());
  return run;
}

}  // namespace preceptor::app
