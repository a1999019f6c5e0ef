#pragma once
#include <nlohmann/json.hpp>

#include "training/metrics.h"

namespace preceptor::training {

/// {"images": …, "auc": …, "auc_low": …, "auc_high": …, "accuracy": …}; null where a metric is not defined.
nlohmann::ordered_json to_json(const Metrics& metrics);

/// The figure that models are compared by, AUC or where it is not defined accuracy, or Dice; nullopt: none is defined.
std::optional<Estimate> headline(const Metrics& metrics);

}  // namespace preceptor::training
