#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

/// A finished run as its files tell it, read with distrust: they may come from elsewhere, from an
/// older version, or from a run that crashed. What is missing stays empty; what has the wrong type
/// is left out and named among the flaws.
namespace preceptor::app {

/// A metric and its 95 % interval; nullopt where the files say null or nothing.
struct Measured {
  double value = 0, low = 0, high = 0;
  bool interval = false;  ///< low and high are there
};
using Metric = std::optional<Measured>;

/// One model on the union of the sites' test images.
struct ModelRow {
  std::optional<std::uint64_t> images, parameters;
  Metric main;  ///< AUC, or of segmentation: Dice
  Metric accuracy, sensitivity, specificity, ece;  ///< of classification
  Metric iou, hd95;                                ///< of segmentation; hd95 in pixels
};

/// kUntold: the site had no image to judge on, or the word is not one of ours.
enum class Verdict { kHelped, kSame, kHarmed, kUntold };

struct SiteRow {
  std::string name;
  std::optional<std::uint64_t> train, validation, test;
  Metric teacher, central;             ///< AUC or Dice; told by simulations only
  Metric local, global, personalised;  ///< AUC or Dice
  std::string chosen, metric;
  Metric difference;  ///< chosen − local, of `metric`
  std::optional<double> p_value;
  Verdict verdict = Verdict::kUntold;
};

struct Summary {
  std::string job, ended_because, config_hash, model_hash, student, version;
  std::optional<bool> completed;
  std::optional<std::uint64_t> seed, rounds, partial_rounds, void_rounds, macs, threads;
  std::optional<std::uint64_t> bytes_up, bytes_down, bytes_up_fp32, peak_rss_bytes;
  std::optional<double> wall_seconds;
  std::vector<std::string> classes;
  std::optional<ModelRow> teacher, distilled, central, federated;
  std::vector<SiteRow> sites;
  bool segmentation = false;  ///< models are judged by Dice
  std::vector<std::string> skipped, notes;
  std::optional<std::uint64_t> duplicates, consortium_train;
};

/// What a stage of the update codec left of the updates, mean over a round's sites.
struct FidelityRow {
  std::string stage;
  std::optional<double> cosine, norm_ratio;
};

/// A line of rounds.jsonl. Lists keep their first kNames entries; the counts are whole.
struct RoundRow {
  static constexpr std::size_t kNames = 12;
  double number = 0;
  std::string outcome;
  std::vector<std::string> accepted;
  std::vector<std::pair<std::string, std::string>> missing;  ///< site, why
  std::size_t accepted_count = 0, missing_count = 0;
  std::optional<std::uint64_t> samples, cohort_samples;
  std::optional<double> train_loss;
  Metric main;  ///< AUC or Dice, on the consortium's validation images
  std::vector<FidelityRow> fidelity;  ///< at most kNames stages
};

/// "AUC" or "Dice": what ModelRow::main is.
const char* main_metric(const Summary& summary);

/// A model that sites are measured with: its name, a phrase that says what it is, and where a row has its figure.
struct SiteModel {
  const char *name, *what;
  Metric SiteRow::* metric;
};
/// Teacher and Central, each only if a site tells of it, then Local, Global and Personalised.
std::vector<SiteModel> site_models(const std::vector<SiteRow>& sites);

struct Run {
  Summary summary;
  std::vector<RoundRow> rounds;        ///< by number
  std::vector<std::string> silent;     ///< sites that were asked in a round but sent no verdict
  std::string config;                  ///< config.yaml as it stands; empty when there is none
  std::optional<bool> config_matches;  ///< its SHA-256 is the summary's config_hash
  std::vector<std::string> flaws;      ///< what could not be read, a line each
};

/// <run>/summary.json. Errors: kNotFound, kRefused (too large), kCorrupt (not a JSON object, or
/// nested or keyed beyond what a summary can be).
Result<nlohmann::ordered_json> read_summary(const std::filesystem::path& run);

/// Errors: kCorrupt when `sites` is there but is no list of objects; all else is forgiven.
Result<Summary> to_summary(const nlohmann::ordered_json& json, std::vector<std::string>& flaws);

/// The run directory. rounds.jsonl and config.yaml may be missing; a bad line of rounds.jsonl (the
/// last one after a crash, say) is left out and named.
Result<Run> read_run(const std::filesystem::path& run);

/// "Federation helped 3 of 4 sites; none was harmed." Plain text. silent: sites without a verdict.
std::string headline(const Summary& summary, std::size_t silent = 0);

}  // namespace preceptor::app
