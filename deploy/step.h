#pragma once
#include <nlohmann/json.hpp>

#include "common/registry.h"
#include "compression/model/low_rank.h"
#include "compression/model/prune.h"
#include "compression/model/quantise.h"
#include "compression/model/sparse.h"
#include "distill/distill.h"

/// Steps of a recipe: each takes a model and gives a smaller or a better one.
namespace preceptor::deploy {

inline training::TrainingOptions no_training() {
  training::TrainingOptions options;
  options.epochs = 0;
  return options;
}

/// One step as the recipe's file says it. Only the groups that `step` uses may be given.
struct StepOptions {
  std::string step;  ///< a registered name
  models::ModelOptions model{"shufflenet_v2", 0.5, "small"};  ///< distil: the student
  training::TrainingOptions training = no_training();          ///< of steps that train; epochs: 0: they do not
  distill::DistillationOptions distillation;                   ///< likewise
  compression::PruneOptions prune;
  compression::GroupSparsity::Options sparsity;
  compression::MaskOptions mask;
  compression::LowRankOptions factorise;
  compression::QuantiseOptions quantise;
  template <class V>
  void visit(V& v) {
    v("step", step);
    if (step == "distil") v("model", model);
    if (step == "prune") v("prune", prune);
    if (step == "sparsify") v("sparsity", sparsity);
    if (step == "mask") v("mask", mask);
    if (step == "factorise") v("factorise", factorise);
    if (step == "quantise") v("quantise", quantise);
    v("training", training);
    v("distillation", distillation);
  }
};

/// What steps work on and with.
struct Workshop {
  const data::Splits& data;
  distill::Teacher teacher;  ///< where the recipe began
  std::uint64_t seed;        ///< of this step
};

/// What a step did, for the record: parts of the model, ranks, layers kept in float.
using StepReport = nlohmann::ordered_json;

struct StepResult {
  models::FlatModel model;
  StepReport report;
};

/// help: one line. run: consumes nothing; gives a new model.
struct StepEntry {
  std::string help;
  std::function<Result<StepResult>(models::FlatModel& model, const StepOptions& options, const Workshop& workshop)> run;
};
Registry<StepEntry>& steps();
struct RegisterStep {
  RegisterStep(const char* name, StepEntry entry) { steps().add(name, std::move(entry)); }
};

}  // namespace preceptor::deploy
