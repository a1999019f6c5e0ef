#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/source.h"
#include "deploy/choose.h"
#include "deploy/step.h"

/// From a teacher to a small, measured model by steps that a file lists; or to the best of many, within a budget.
namespace preceptor::deploy {

/// Where every chain begins: a model file, or a network trained here.
struct StartOptions {
  std::string path;  ///< .safetensors that preceptor wrote; "": train `model`
  models::ModelOptions model{"resnet18", 1, "small"};
  training::TrainingOptions training;
  template <class V>
  void visit(V& v) {
    v("path", path);
    v("model", model);
    v("training", training);
  }
};

struct ChainOptions {
  std::string name;
  std::vector<StepOptions> steps;
  template <class V>
  void visit(V& v) {
    v("name", name);
    v("steps", steps);
  }
};

/// Walks variations of one chain from mild to strong. A setting that is at least as strong in every knob as one whose
/// metric fell below the budget's is not tried.
struct SearchOptions {
  std::string chain;                ///< whose steps are varied; "": no search
  std::vector<double> ratios;       ///< of its prune steps
  std::vector<double> energies;     ///< of its factorise steps, falling
  std::vector<std::string> precisions;  ///< float: without its quantise steps; int8: with them
  double max_milliseconds = 0, max_mib = 0, min_metric = 0;  ///< 0: any
  template <class V>
  void visit(V& v) {
    v("chain", chain);
    v("ratios", ratios);
    v("energies", energies);
    v("precisions", precisions);
    v("max_milliseconds", max_milliseconds, Range{0, 1e9});
    v("max_mib", max_mib, Range{0, 1e9});
    v("min_metric", min_metric, Range{0, 1});
  }
};

struct RecipeOptions {
  std::string job = "compress";
  std::vector<std::uint64_t> seeds{1};  ///< the whole recipe once for each
  data::SourceOptions data;              ///< all of it: its own splits, or a quarter to test and 15 % to validate on
  StartOptions teacher;
  std::vector<ChainOptions> chains;
  SearchOptions search;
  int runs = 200;  ///< timed inferences of each result
  template <class V>
  void visit(V& v) {
    v("job", job);
    v("seeds", seeds, Range{0, 9e15});
    v("data", data);
    v("teacher", teacher);
    v("chains", chains);
    v("search", search);
    v("runs", runs, Range{10, 1e6});
  }
};

/// Runs the recipe; shows progress. Each step's model and figures are kept in out/seed-<n>/, named by what they depend on,
/// so that another call goes on where this one stopped, and chains that begin alike share the work. Writes out/compress.json
/// and out/compress.md (the table), and each chain's last model as out/seed-<n>/<chain>.safetensors.
/// measure_again: models that are there already are measured anew, on this box as it is now; none is made twice.
Result<nlohmann::ordered_json> run_recipe(const RecipeOptions& options, const std::filesystem::path& out, bool measure_again = false);

/// Error: kInvalid, naming all that is wrong with chains and search before an hour is spent.
Result<void> check(const RecipeOptions& options);

/// The table of a result, Markdown.
std::string table_of(const nlohmann::ordered_json& result);

}  // namespace preceptor::deploy
