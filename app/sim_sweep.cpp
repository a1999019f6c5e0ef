#include <fstream>
#include <iostream>

#include "app/command.h"
#include "app/report.h"
#include "app/run_files.h"
#include "app/sweep_figure.h"
#include "common/cpu.h"
#include "common/file.h"
#include "common/log.h"
#include "common/safetensors.h"
#include "models/latency.h"
#include "sim/simulation.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

/// Runs of one configuration that differ in a few keys, to be compared.
struct SweepOptions {
  struct Run {
    std::string name;               ///< folder of the run, and its line of the table
    std::vector<std::string> set;   ///< "student.model.name=medmamba"
    template <class V>
    void visit(V& v) {
      v("name", name);
      v("set", set);
    }
  };
  std::string base;               ///< configuration of `sim run`, beside this file
  std::vector<std::string> set;   ///< for every run
  std::vector<Run> runs;
  template <class V>
  void visit(V& v) {
    v("base", base);
    v("set", set);
    v("runs", runs);
  }
};

/// What runs that begin alike need only once: the teacher, the student that was derived from it. What each depends on → file.
using Shared = std::map<std::string, std::string>;

std::string teacher_made_of(sim::SimulationOptions options) {
  return write_options(options.teacher) + write_options(options.data) + std::to_string(options.seed);
}
std::string student_made_of(sim::SimulationOptions options) { return teacher_made_of(options) + write_options(options.student); }

/// Takes the student as it lies there: nothing is added, nothing trained.
void start_from(coordinator::StudentOptions& student, const std::string& path) {
  student.path = path;
  student.training.epochs = 0;
  student.assistants.clear();
  student.mutual.peers.clear();
  student.lora.rank = 0;
}

/// What an earlier call left, if it was the same run to the end.
std::optional<Json> finished(const fs::path& out, const std::string& config) {
  const auto text = read_text(out / "summary.json", 32 << 20);
  if (!text) return {};
  auto summary = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!summary.is_object() || summary.value("config_hash", "") != hex(sha256(config)) || !summary.value("completed", false)) return {};
  return summary;
}

/// Whether the model that lies there is this run's own, and not an earlier one's.
bool made_here(const fs::path& path, const std::string& config) {
  const auto file = SafetensorsFile::load(path);
  if (!file) return false;
  const auto hash = file->metadata().find("config_hash");
  return hash != file->metadata().end() && hash->second == hex(sha256(config));
}

Json line_of(const std::string& name, const Json& summary, models::FlatModel& model) {
  const auto& architecture = **models::zoo().find(model.spec().model.name);
  return {{"run", name},
          {"model", model.spec().model.name},
          {"variant", model.spec().model.variant},
          {"paradigm", architecture.paradigm},
          {"parameters", model.space().trainable()},
          {"macs", summary.at("student_macs")},
          {"test", summary.at("test")},
          {"distilled", summary.at("distilled")},
          {"teacher", summary.at("teacher")},
          {"bytes_up", summary.at("bytes_up")},
          {"bytes_up_fp32", summary.at("bytes_up_fp32")},
          {"milliseconds", models::milliseconds_per_image(model, 51)},
          {"model_hash", summary.at("model_hash")}};
}

std::string figure(const Json& metrics, const char* key) {
  if (!metrics.contains(key) || metrics[key].is_null()) return "–";
  return fmt::format("{:.3f}", metrics[key].get<double>());
}

std::string table_of(const Json& lines) {
  const char* main = lines.empty() || !lines[0]["test"]["auc"].is_null() ? "auc" : "dice";
  auto text = fmt::format("| run | paradigm | parameters | MMAC | {0} (95 %) | {0} before round 1 | update bytes, all rounds | as fp32 | ms an image |\n"
                          "|---|---|---:|---:|---|---|---:|---:|---:|\n", std::string_view(main) == "auc" ? "AUC" : "Dice");
  for (const auto& l : lines)
    text += fmt::format("| {} | {} | {} | {:.1f} | {} ({}–{}) | {} | {:.2f} MB | {:.1f}× | {:.2f} |\n", l["run"].get<std::string>(),
                        l["paradigm"].get<std::string>(), l["parameters"].get<std::uint64_t>(), l["macs"].get<double>() / 1e6,
                        figure(l["test"], main), figure(l["test"], (std::string(main) + "_low").c_str()),
                        figure(l["test"], (std::string(main) + "_high").c_str()), figure(l["distilled"], main),
                        l["bytes_up"].get<double>() / 1e6, l["bytes_up_fp32"].get<double>() / l["bytes_up"].get<double>(),
                        l["milliseconds"].get<double>());
  return text;
}

std::string figure_of(const Json& lines) {
  const std::string main = lines.empty() || !lines[0]["test"]["auc"].is_null() ? "auc" : "dice";
  std::vector<SweepPoint> points;
  for (const auto& l : lines) {
    const auto& test = l["test"];
    if (!test[main].is_null() && !test[main + "_low"].is_null())
      points.push_back({l["run"].get<std::string>(), l["bytes_up"].get<double>(), test[main].get<double>(), test[main + "_low"].get<double>(),
                        test[main + "_high"].get<double>()});
  }
  return sweep_svg(main == "auc" ? "AUC" : "Dice", points);
}

/// Everything that can be wrong with the runs, before the first of them costs an hour.
Result<std::vector<sim::SimulationOptions>> read_runs(const RunArguments& arguments, const SweepOptions& sweep) {
  if (sweep.runs.empty()) return fail(Code::kInvalid, "{}: runs: is empty", arguments.config);
  std::vector<sim::SimulationOptions> all;
  std::vector<std::string> names;
  for (const auto& run : sweep.runs) {
    if (run.name.empty() || run.name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != run.name.npos ||
        run.name.starts_with('.') || std::ranges::count(names, run.name) > 0)
      return fail(Code::kInvalid, "{}: run '{}': a name of its own, of letters, digits, '.', '_' and '-', is wanted", arguments.config, run.name);
    names.push_back(run.name);
    auto set = sweep.set;
    set.insert(set.end(), run.set.begin(), run.set.end());
    set.insert(set.end(), arguments.overrides.begin(), arguments.overrides.end());
    const auto base = fs::path(arguments.config).parent_path() / sweep.base;
    const auto node = TRY(load_yaml(base, set));
    auto options = read_options<sim::SimulationOptions>(node, base.string());
    if (!options) return in("run " + run.name, options.error());
    all.push_back(std::move(*options));
  }
  return all;
}

Result<void> sweep_runs(const RunArguments& arguments) {
  const auto node = TRY(load_yaml(arguments.config));
  const auto sweep = TRY(read_options<SweepOptions>(node, arguments.config));
  auto runs = TRY(read_runs(arguments, sweep));
  spdlog::info("{}", cpu_summary());
  Shared teachers, students;
  auto lines = Json::array();
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const auto& name = sweep.runs[i].name;
    const auto out = fs::path(arguments.out) / name;
    auto& options = runs[i];
    const auto teacher = teacher_made_of(options), student = student_made_of(options);
    const auto config = write_options(options);  // as asked for: where the teacher lies does not make another run
    auto summary = finished(out, config);
    if (const auto found = teachers.find(teacher); found != teachers.end()) options.teacher.path = found->second;
    if (const auto found = students.find(student); found != students.end()) start_from(options.student, found->second);
    spdlog::info("run {} ({} of {}){}", name, i + 1, runs.size(), summary ? ": done before" : "");
    if (!summary) {
      auto done = sim::simulate(options, config, out);
      if (!done) return in("run " + name, done.error());
      summary = std::move(*done);
      TRY(write_report(out));
    }
    if (const auto path = out / "teacher.safetensors"; made_here(path, config)) teachers.try_emplace(teacher, path.string());
    if (const auto path = out / "student.safetensors"; made_here(path, config)) students.try_emplace(student, path.string());
    auto model = TRY(models::load_model(out / "model.safetensors"));
    lines.push_back(line_of(name, *summary, model.model));
    TRY(write_file(fs::path(arguments.out) / "sweep.json", lines.dump(2) + "\n"));
    TRY(write_file(fs::path(arguments.out) / "sweep.md", table_of(lines)));
    TRY(write_file(fs::path(arguments.out) / "sweep.svg", figure_of(lines)));
  }
  std::cout << (arguments.json ? lines.dump(2) + "\n" : table_of(lines));
  return {};
}

const RegisterCommand kSimSweep{
    "sim sweep",
    {"Run a configuration with several variations and compare them in one table; goes on where it was stopped",
     "preceptor sim sweep configs/sim/pneumonia-zoo.yaml --set data.path=pneumoniamnist.npz --out runs/zoo",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, false, true);
       return [arguments] { return finish(sweep_runs(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
