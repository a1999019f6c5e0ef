#include "deploy/recipe.h"

#include <algorithm>
#include <set>

#include "common/file.h"
#include "common/log.h"
#include "common/progress.h"
#include "data/data.h"
#include "deploy/profile.h"
#include "training/contract.h"
#include "training/metrics_json.h"

namespace preceptor::deploy {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

namespace {

constexpr char kNameLetters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";

/// A model after some steps. The key says all that it depends on: the same key, the same model.
struct Piece {
  std::string key;
  models::FlatModel model;
  Json figures;                  ///< as measured
  Json lineage = Json::array();  ///< what was done so far, and what it cost
};

/// One seed's work, kept in a folder.
class Bench {
 public:
  Bench(const RecipeOptions& options, std::uint64_t seed, const data::Splits& data, fs::path folder, bool measure_again)
      : options_(options), seed_(seed), data_(data), folder_(std::move(folder)), measure_again_(measure_again) {}

  Result<Piece> start() {
    auto data = options_.data;
    auto teacher = options_.teacher;
    const auto key = key_of("start", write_options(data) + write_options(teacher) + std::to_string(seed_));
    const auto make = [&]() -> Result<StepResult> {
      auto model = train_teacher();
      if (!model) return std::unexpected(model.error());
      return StepResult{std::move(*model), {}};
    };
    auto piece = TRY(remembered(key, "teacher", make, Json::array()));
    auto kept = TRY(models::load_model(file_of(key)));
    teacher_ = distill::Teacher::wrap(std::make_shared<models::FlatModel>(std::move(kept.model)));
    return piece;
  }

  Result<Piece> after(Piece& before, StepOptions step) {
    const auto* entry = TRY(steps().find(step.step));
    const auto key = key_of(before.key, write_options(step));
    const Workshop workshop{data_, *teacher_, RandomStream(seed_, "recipe/" + key).bits64()};
    return remembered(key, step.step, [&] { return entry->run(before.model, step, workshop); }, before.lineage);
  }

  fs::path file_of(const std::string& key) const { return folder_ / "steps" / (key + ".safetensors"); }

 private:
  static std::string key_of(const std::string& before, const std::string& what) { return hex(sha256(before + "\n" + what)).substr(0, 16); }

  Result<models::FlatModel> train_teacher() {
    const auto& options = options_.teacher;
    if (!options.path.empty()) return std::move(TRY(models::load_model(options.path)).model);
    TRY(training::check_task(options.model, data_.test));
    auto model = TRY(models::FlatModel::create({options.model, {int(data_.test.classes.size()), data_.test.channels, data_.test.height}},
                                               options.training.device));
    model.initialise(RandomStream(seed_, "teacher/init"));
    const auto objective = training::make_supervised(options.training, data_.train);
    Progress progress("teacher");
    TRY(training::train(model, data_.train, options.training, *objective, RandomStream(seed_, "teacher").bits64(), {}, [&](int epoch, double loss) {
      progress.update(double(epoch + 1) / options.training.epochs, fmt::format("epoch {}/{}, loss {:.3f}", epoch + 1, options.training.epochs, loss));
      return true;
    }));
    return model;
  }

  /// The piece of an earlier call, or a new one, measured and kept.
  template <class Make>
  Result<Piece> remembered(const std::string& key, const std::string& what, Make make, Json lineage) {
    auto record = folder_ / "steps" / (key + ".json");
    if (const auto text = read_text(record, 4 << 20)) {
      auto json = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
      auto loaded = models::load_model(file_of(key));
      if (loaded && json.is_object() && json.contains("figures") && json.contains("lineage")) {
        spdlog::info("seed {}: {}: done before", seed_, what);
        Piece piece{key, std::move(loaded->model), json["figures"], json["lineage"]};
        if (measure_again_ && measured_.insert(key).second) TRY(note(piece, what, std::move(lineage)));
        return piece;
      }
    }
    Result<StepResult> made = make();
    if (!made) return in("step " + what, made.error());
    auto metadata = training::contract_metadata(training::make_contract(made->model, data_));
    Json entry{{"step", what}, {"report", std::move(made->report)}};
    lineage.push_back(entry);
    metadata["job"] = options_.job;
    metadata["lineage"] = lineage.dump();
    std::error_code error;
    fs::create_directories(folder_ / "steps", error);
    TRY(models::save_model(file_of(key), made->model, metadata));
    // What was saved is what is measured: int8 weights are rounded in the file.
    auto loaded = TRY(models::load_model(file_of(key)));
    Piece piece{key, std::move(loaded.model), {}, lineage};
    measured_.insert(key);
    lineage.erase(lineage.size() - 1);
    TRY(note(piece, what, std::move(lineage)));
    return piece;
  }

  /// Measures a piece, whose last line of lineage is its own and the others are `before`, and keeps the figures.
  Result<void> note(Piece& piece, const std::string& what, Json before) {
    piece.figures = TRY(measured(piece.model, file_of(piece.key)));
    before.push_back(piece.lineage.back());
    piece.lineage = std::move(before);
    piece.lineage.back()["figures"] = piece.figures;
    TRY(write_file(folder_ / "steps" / (piece.key + ".json"), Json{{"figures", piece.figures}, {"lineage", piece.lineage}}.dump(1) + "\n"));
    const auto main = piece.figures["headline"];
    spdlog::info("seed {}: {}: {} {}, {} parameters, {:.1f} MMAC, {:.0f} kB, {:.2f} ms", seed_, what, piece.figures["metric"].get<std::string>(),
                 main.is_null() ? std::string("not defined") : fmt::format("{:.4f}", main.get<double>()), piece.figures["parameters"].get<std::uint64_t>(),
                 piece.figures["macs"].get<double>() / 1e6, piece.figures["bytes"].get<double>() / 1e3, piece.figures["milliseconds"].get<double>());
    return {};
  }

  Result<Json> measured(models::FlatModel& model, const fs::path& file) {
    const auto metrics = training::measure(TRY(engine_outcome(model, data_.test)), seed_);
    const auto main = training::headline(metrics);
    std::error_code error;
    Json json{{"metric", metrics.dice ? "Dice" : metrics.auc ? "AUC" : "accuracy"}, {"headline", main ? Json(main->value) : Json()}};
    json["test"] = training::to_json(metrics);
    json["parameters"] = model.space().trainable();
    json["macs"] = models::count_macs(model.network(), model.spec().task);
    json["bytes"] = fs::file_size(file, error);
    json["int8_layers"] = model.spec().structure.int8.size();
    auto plain = TRY(without_rounding(model));
    json["milliseconds_float"] = TRY(median_milliseconds(plain, options_.runs));
    json["milliseconds_int8"] = model.spec().structure.int8.empty() ? Json() : Json(TRY(median_milliseconds(model, options_.runs)));
    json["milliseconds"] = json["milliseconds_int8"].is_null() ? json["milliseconds_float"] : json["milliseconds_int8"];
    return json;
  }

  const RecipeOptions& options_;
  std::uint64_t seed_;
  const data::Splits& data_;
  fs::path folder_;
  bool measure_again_;
  std::set<std::string> measured_;  ///< keys, in this call
  std::optional<distill::Teacher> teacher_;
};

/// Runs a chain from the start; keeps its last model under its name. Rows: one a step.
Result<Json> run_chain(Bench& bench, const ChainOptions& chain, const fs::path& folder) {
  auto piece = TRY(bench.start());
  for (const auto& step : chain.steps) {
    auto next = bench.after(piece, step);
    if (!next) return in("chain " + chain.name, next.error());
    piece = std::move(*next);
  }
  std::error_code error;
  fs::copy_file(bench.file_of(piece.key), folder / (chain.name + ".safetensors"), fs::copy_options::overwrite_existing, error);
  if (error) return fail(Code::kIo, "cannot write {}: {}", (folder / (chain.name + ".safetensors")).string(), error.message());
  return Json{{"chain", chain.name}, {"figures", piece.figures}, {"lineage", piece.lineage}};
}

/// A chain with its knobs set as one trial of the search has them.
struct Setting {
  double ratio = -1, energy = -1;  ///< −1: as the chain says
  bool int8 = true;

  /// Whether every knob is at least as strong as the other's.
  bool at_least(const Setting& other) const { return ratio >= other.ratio && energy <= other.energy && int8 >= other.int8; }
  ChainOptions apply(const ChainOptions& chain) const {
    ChainOptions varied{chain.name, {}};
    for (auto step : chain.steps) {
      if (step.step == "quantise" && !int8) continue;
      if (step.step == "prune" && ratio >= 0) step.prune.ratio = ratio;
      if (step.step == "factorise" && energy >= 0) step.factorise.energy = energy;
      varied.steps.push_back(std::move(step));
    }
    varied.name = name(chain.name);
    return varied;
  }
  std::string name(const std::string& chain) const {
    auto text = chain;
    if (ratio >= 0) text += fmt::format("-p{:g}", ratio);
    if (energy >= 0) text += fmt::format("-e{:g}", energy);
    return text + (int8 ? "-int8" : "-float");
  }
};

std::vector<Setting> settings_of(const SearchOptions& search) {
  std::vector<Setting> all;
  const auto ratios = search.ratios.empty() ? std::vector<double>{-1} : search.ratios;
  const auto energies = search.energies.empty() ? std::vector<double>{-1} : search.energies;
  const auto precisions = search.precisions.empty() ? std::vector<std::string>{"int8"} : search.precisions;
  for (const auto& precision : precisions)
    for (const double ratio : ratios)
      for (const double energy : energies) all.push_back({ratio, energy, precision == "int8"});
  return all;
}

Budget budget_of(const SearchOptions& search) {
  Budget budget;
  if (search.max_milliseconds > 0) budget.max_milliseconds = search.max_milliseconds;
  if (search.max_mib > 0) budget.max_mib = search.max_mib;
  budget.min_metric = search.min_metric;
  return budget;
}

Candidate candidate_of(const std::string& name, const Json& figures) {
  const auto& main = figures["headline"];
  return {name, main.is_null() ? 0.0 : main.get<double>(), figures["milliseconds"].get<double>(), figures["bytes"].get<double>() / (1 << 20)};
}

Result<Json> run_search(Bench& bench, const RecipeOptions& options, const fs::path& folder) {
  const auto chain = std::ranges::find(options.chains, options.search.chain, &ChainOptions::name);
  std::vector<Candidate> candidates;
  std::vector<Setting> fallen;
  auto rows = Json::array();
  for (const auto& setting : settings_of(options.search)) {
    const auto varied = setting.apply(*chain);
    if (std::ranges::any_of(fallen, [&](const Setting& weaker) { return setting.at_least(weaker); })) {
      spdlog::info("search: {} is not tried: a milder setting fell below min_metric", varied.name);
      continue;
    }
    auto row = TRY(run_chain(bench, varied, folder));
    candidates.push_back(candidate_of(varied.name, row["figures"]));
    if (candidates.back().metric < options.search.min_metric) fallen.push_back(setting);
    rows.push_back(std::move(row));
  }
  const auto best = choose(candidates, budget_of(options.search));
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    rows[i]["frontier"] = candidates[i].frontier;
    rows[i]["why_not"] = candidates[i].why_not;
  }
  return Json{{"tried", rows}, {"chosen", best ? Json(candidates[*best].name) : Json()}};
}

/// Mean over seeds of a figure that every seed has; null otherwise.
Json mean(const std::vector<const Json*>& rows, const std::string& pointer) {
  double sum = 0;
  for (const auto* row : rows) {
    const auto& value = row->at(Json::json_pointer(pointer));
    if (value.is_null()) return {};
    sum += value.get<double>();
  }
  return sum / double(rows.size());
}

std::string cell(const Json& value, const char* format) { return value.is_null() ? "–" : fmt::format(fmt::runtime(format), value.get<double>()); }

std::string row_of(const std::string& name, const std::vector<const Json*>& rows) {
  const auto metric = rows[0]->at("metric").get<std::string>() == "Dice" ? "dice" : rows[0]->at("metric").get<std::string>() == "AUC" ? "auc" : "accuracy";
  const auto at = [&](const std::string& end) { return mean(rows, fmt::format("/test/{}{}", metric, end)); };
  std::string seeds;
  for (const auto* row : rows) seeds += (seeds.empty() ? "" : " / ") + cell(row->at("headline"), "{:.3f}");
  return fmt::format("| {} | {} ({}–{}) | {} | {} | {} | {} | {} | {} |\n", name, cell(at(""), "{:.3f}"), cell(at("_low"), "{:.3f}"), cell(at("_high"), "{:.3f}"),
                     seeds, cell(mean(rows, "/parameters"), "{:.0f}"), fmt::format("{:.1f}", mean(rows, "/macs").get<double>() / 1e6),
                     fmt::format("{:.0f}", mean(rows, "/bytes").get<double>() / 1e3), cell(mean(rows, "/milliseconds_float"), "{:.3f}"),
                     cell(mean(rows, "/milliseconds_int8"), "{:.3f}"));
}

/// The whole source as one site.
Result<data::Splits> read_whole(const data::SourceOptions& options, std::uint64_t seed) {
  data::PartitionOptions one;
  one.method = "iid";
  one.sites = one.minimum = 1;
  auto source = TRY(data::read_source(options, seed));
  auto federation = TRY(data::federate(std::move(source), one, seed));
  return std::move(federation.sites.at(0).data);
}

bool sane_name(const std::string& name) {
  return !name.empty() && !name.starts_with('.') && name.find_first_not_of(kNameLetters) == name.npos && name.size() <= 60;
}

}  // namespace

Result<void> check(const RecipeOptions& options) {
  std::vector<std::string> problems;
  std::set<std::string> names;
  if (options.seeds.empty()) problems.push_back("seeds: is empty");
  if (options.chains.empty()) problems.push_back("chains: is empty");
  for (const auto& chain : options.chains) {
    if (!sane_name(chain.name) || chain.name == "teacher" || !names.insert(chain.name).second)
      problems.push_back(fmt::format("chain '{}': a name of its own, of letters, digits, '.', '_' and '-', is wanted", chain.name));
    for (const auto& step : chain.steps)
      if (const auto known = steps().find(step.step); !known) problems.push_back(fmt::format("chain '{}': {}", chain.name, known.error().message));
    if (chain.steps.empty()) problems.push_back(fmt::format("chain '{}': has no steps", chain.name));
  }
  const auto& search = options.search;
  if (!search.chain.empty() && !names.contains(search.chain)) problems.push_back(fmt::format("search.chain: there is no chain '{}'", search.chain));
  if (!std::ranges::is_sorted(search.ratios)) problems.push_back("search.ratios: must rise, from mild to strong");
  if (!std::ranges::is_sorted(search.energies, std::greater<>())) problems.push_back("search.energies: must fall, from mild to strong");
  for (const auto& precision : search.precisions)
    if (precision != "float" && precision != "int8") problems.push_back(fmt::format("search.precisions: float or int8, not '{}'", precision));
  if (!std::ranges::is_sorted(search.precisions)) problems.push_back("search.precisions: [float, int8] is the order from mild to strong");
  if (problems.empty()) return {};
  return problems_error(problems);
}

Result<Json> run_recipe(const RecipeOptions& options, const fs::path& out, bool measure_again) {
  TRY(check(options));
  std::error_code error;
  fs::create_directories(out, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", out.string(), error.message());
  auto written = options;
  TRY(write_file(out / "config.yaml", write_options(written)));
  Json result{{"job", options.job}, {"seeds", Json::array()}};
  for (const auto seed : options.seeds) {
    const auto data = TRY(read_whole(options.data, seed));
    const auto folder = out / fmt::format("seed-{}", seed);
    Bench bench(options, seed, data, folder, measure_again);
    const auto start = TRY(bench.start());
    Json entry{{"seed", seed}, {"teacher", start.figures}, {"chains", Json::array()}};
    for (const auto& chain : options.chains) {
      spdlog::info("seed {}: chain {}", seed, chain.name);
      entry["chains"].push_back(TRY(run_chain(bench, chain, folder)));
    }
    if (!options.search.chain.empty()) entry["search"] = TRY(run_search(bench, options, folder));
    result["seeds"].push_back(std::move(entry));
    TRY(write_file(out / "compress.json", result.dump(1) + "\n"));
    TRY(write_file(out / "compress.md", table_of(result)));
  }
  return result;
}

std::string table_of(const Json& result) {
  const auto& seeds = result["seeds"];
  const auto metric = seeds[0]["teacher"]["metric"].get<std::string>();
  auto text = fmt::format("| model | {} (95 %), mean | by seed | parameters | MMAC | kB | ms float | ms int8 |\n|---|---|---|---:|---:|---:|---:|---:|\n", metric);
  std::vector<const Json*> teachers;
  for (const auto& seed : seeds) teachers.push_back(&seed["teacher"]);
  text += row_of("teacher", teachers);
  for (std::size_t c = 0; c < seeds[0]["chains"].size(); ++c) {
    std::vector<const Json*> rows;
    for (const auto& seed : seeds) rows.push_back(&seed["chains"][c]["figures"]);
    text += row_of(seeds[0]["chains"][c]["chain"].get<std::string>(), rows);
  }
  for (const auto& seed : seeds) {
    if (!seed.contains("search")) continue;
    text += fmt::format("\nSearch, seed {}:\n\n| setting | {} | kB | ms | frontier | not taken because |\n|---|---:|---:|---:|---|---|\n", seed["seed"].get<std::uint64_t>(), metric);
    for (const auto& row : seed["search"]["tried"]) {
      const auto name = row["chain"].get<std::string>();
      const bool chosen = seed["search"]["chosen"] == row["chain"];
      text += fmt::format("| {} | {} | {:.0f} | {:.3f} | {} | {} |\n", chosen ? "**" + name + "**" : name, cell(row["figures"]["headline"], "{:.3f}"),
                          row["figures"]["bytes"].get<double>() / 1e3, row["figures"]["milliseconds"].get<double>(), row["frontier"].get<bool>() ? "yes" : "",
                          row["why_not"].get<std::string>());
    }
  }
  return text;
}

}  // namespace preceptor::deploy
