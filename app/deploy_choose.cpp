#include <algorithm>
#include <filesystem>
#include <iostream>

#include "app/command.h"
#include "app/report_format.h"
#include "app/test_images.h"
#include "common/progress.h"
#include "deploy/choose.h"
#include "deploy/profile.h"
#include "training/metrics_json.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Arguments {
  std::vector<std::string> models;
  TestImages images;
  deploy::Budget budget;
  int runs = 200;
  bool json = false;
};

/// Model files themselves, and those in folders: of a run, of a sweep, of a recipe.
Result<std::vector<std::string>> files_of(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const auto& path : paths) {
    std::error_code error;
    if (!fs::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    for (fs::recursive_directory_iterator walk(path, error), end; !error && walk != end; walk.increment(error))
      if (walk->path().extension() == ".safetensors" && walk->path().parent_path().filename() != "steps") files.push_back(walk->path().string());
    if (error) return fail(Code::kIo, "{}: cannot be listed: {}", path, error.message());
  }
  std::ranges::sort(files);
  files.erase(std::ranges::unique(files).begin(), files.end());
  if (files.empty()) return fail(Code::kNotFound, "no .safetensors file in {}", fmt::join(paths, ", "));
  return files;
}

Result<deploy::Candidate> measure(const std::string& file, const Arguments& a) {
  auto loaded = TRY(models::load_model(file));
  const auto images = TRY(a.images.read_for(loaded.model.spec()));
  const auto main = training::headline(training::measure(TRY(deploy::engine_outcome(loaded.model, images)), a.images.seed));
  std::error_code error;
  return deploy::Candidate{file, main ? main->value : 0, TRY(deploy::median_milliseconds(loaded.model, a.runs)), double(fs::file_size(file, error)) / (1 << 20)};
}

Result<int> choose(const Arguments& a) {
  std::vector<deploy::Candidate> candidates;
  {
    Progress progress("measuring");
    const auto files = TRY(files_of(a.models));
    for (std::size_t i = 0; i < files.size(); ++i) {
      progress.update(double(i) / double(files.size()), files[i]);
      auto candidate = measure(files[i], a);
      if (!candidate) return in(files[i], candidate.error());
      candidates.push_back(std::move(*candidate));
    }
  }
  const auto best = deploy::choose(candidates, a.budget);
  if (a.json) {
    Json json{{"chosen", best ? Json(candidates[*best].name) : Json()}, {"candidates", Json::array()}};
    for (const auto& c : candidates)
      json["candidates"].push_back({{"file", c.name}, {"metric", c.metric}, {"milliseconds", c.milliseconds}, {"mib", c.mib}, {"frontier", c.frontier}, {"why_not", c.why_not}});
    std::cout << json.dump(2) << "\n";
  } else {
    std::cout << fmt::format("  {:<50} {:>8} {:>10} {:>9}  {}\n", "model", "metric", "ms", "MiB", "on the frontier / why not");
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const auto& c = candidates[i];
      std::cout << fmt::format("{} {:<50} {:8.4f} {:10.3f} {:9.2f}  {}{}\n", best == i ? '*' : ' ', terminal(c.name, 50), c.metric, c.milliseconds, c.mib,
                               c.frontier ? "frontier " : "", c.why_not);
    }
    std::cout << (best ? "chosen: " + candidates[*best].name + "\n" : "none fits the budget\n");
  }
  return best ? kDone : kFailed;
}

const RegisterCommand kDeployChoose{
    "deploy choose",
    {"Measure model files on this machine and choose the best that fits a budget; 1 if none does",
     "preceptor deploy choose runs/zoo --data pneumoniamnist.npz --max-ms 2 --max-mib 1 --min-metric 0.93",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("models", a->models, "model files, or folders that hold some")->required();
       a->images.add_to(app, /*path_is_flag=*/true);
       app.get_option("--data")->required();
       app.add_option("--max-ms", a->budget.max_milliseconds, "median milliseconds of one image on one thread, at most")->check(CLI::PositiveNumber);
       app.add_option("--max-mib", a->budget.max_mib, "of the model file, at most")->check(CLI::PositiveNumber);
       app.add_option("--min-metric", a->budget.min_metric, "AUC or Dice, at least")->check(CLI::Range(0.0, 1.0));
       app.add_option("--runs", a->runs, "timed inferences of each")->check(CLI::Range(10, 1000000))->capture_default_str();
       app.add_flag("--json", a->json, "print JSON instead of a table");
       return [a] {
         const auto code = choose(*a);
         return code ? *code : report(code.error());
       };
     }}};

}  // namespace
}  // namespace preceptor::app
