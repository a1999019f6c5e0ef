#pragma once
#include <nlohmann/json.hpp>

#include "common/registry.h"
#include "compression/model/low_rank.h"
#include "compression/model/prune.h"
#include "compression/model/quantise.h"
#include "distill/distill.h"

/// Steps of a recipe: each takes a model and gives a smaller or a better one.
namespace preceptor::deploy {

/// One step as the recipe's file says it. Only the groups that `step` uses may be given.
struct StepOptions {
  std::string step;  ///< a registered name
  models::ModelOptions model{"shufflenet_v2", 0.5, "small"};  ///< distil: the student
  training::TrainingOptions training;                          ///< distil, fine-tune, prune (of each of its steps), quantise (if aware)
  distill::DistillationOptions distillation;                   ///< likewise; the teacher is the recipe's
  compression::PruneOptions prune;
  compression::LowRankOptions factorise;
  compression::QuantiseOptions quantise;
  bool aware = false;  ///< quantise: train with rounding afterwards (quantisation-aware training)
  template <class V>
  void visit(V& v) {
    v("step", step);
    const bool trains = step == "distil" || step == "fine-tune" || step == "prune" || (step == "quantise" && aware);
    if (step == "distil") v("model", model);
    if (step == "prune") v("prune", prune);
    if (step == "factorise") v("factorise", factorise);
    if (step == "quantise") v("quantise", quantise), v("aware", aware);
    if (trains || (step == "quantise" && aware)) v("training", training), v("distillation", distillation);
  }
};

/// What steps work on and with.
struct Workshop {
  const data::Splits& data;
  distill::Teacher teacher;
  std::uint64_t seed;  ///< of this step
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
