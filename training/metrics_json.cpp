#include "training/metrics_json.h"

namespace preceptor::training {

nlohmann::ordered_json to_json(const Metrics& m) {
  nlohmann::ordered_json json{{"images", m.images}};
  const auto add = [&](const std::string& name, const std::optional<Estimate>& e) {
    const auto value = [&](double Estimate::* part) { return e ? nlohmann::ordered_json(*e.*part) : nlohmann::ordered_json(); };
    json[name] = value(&Estimate::value);
    json[name + "_low"] = value(&Estimate::low);
    json[name + "_high"] = value(&Estimate::high);
  };
  add("auc", m.auc);
  add("accuracy", m.accuracy);
  add("sensitivity", m.sensitivity);
  add("specificity", m.specificity);
  add("ece", m.ece);
  add("dice", m.dice);
  add("iou", m.iou);
  add("hd95", m.hd95);
  return json;
}

std::optional<Estimate> headline(const Metrics& metrics) { return metrics.dice ? metrics.dice : metrics.auc ? metrics.auc : metrics.accuracy; }

}  // namespace preceptor::training
