#pragma once
#include <nlohmann/json.hpp>

#include "data/source.h"
#include "models/flat_model.h"
#include "training/contract.h"

/// A model card (Mitchell 2019, arXiv:1810.03993): what a model is for, where it comes from, how good it is and for whom.
namespace preceptor::deploy {

struct CardInputs {
  std::string file;          ///< of the model
  std::string intended_use;  ///< a sentence; "": what follows from the classes
  std::optional<data::Source> images;  ///< to measure on: its test split, or all where there is none
  nlohmann::ordered_json run;      ///< summary.json of the run that made it; null: none
  nlohmann::ordered_json profile;  ///< profile.json; null: not profiled
  std::uint64_t seed = 1;          ///< of the bootstrap
};

/// The card as data. Measures on `images` with the engine: in all, by site, by class; calibration before and after the
/// contract's temperature. Everything else is copied from the model file's metadata, the run and the profile; what they do
/// not tell stands as null, and among the limits.
Result<nlohmann::ordered_json> make_card(models::LoadedModel& loaded, const CardInputs& inputs);

}  // namespace preceptor::deploy
