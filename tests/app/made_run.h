#pragma once
#include <nlohmann/json.hpp>

#include "common/hash.h"

/// What a run's files hold, made up.
namespace preceptor::app {

using Json = nlohmann::ordered_json;

inline void put(Json& json, const std::string& name, const Json& value) {
  json[name] = value;
  json[name + "_low"] = value.is_null() ? Json() : Json(value.get<double>() - 0.02);
  json[name + "_high"] = value.is_null() ? Json() : Json(value.get<double>() + 0.02);
}

inline Json model(const Json& auc) {
  Json json{{"images", 200}};
  put(json, "auc", auc);
  for (const char* name : {"accuracy", "sensitivity", "specificity", "ece"}) put(json, name, 0.8);
  return json;
}

inline Json site(const std::string& name, double difference, const std::string& verdict,
                 const Json& local = 0.85) {
  Json json{{"name", name}, {"train", 1200}, {"validation", 60}, {"test", 80}};
  put(json, "local_auc", local);
  put(json, "global_auc", local.is_null() ? Json() : Json(0.9));
  put(json, "personalised_auc", local.is_null() ? Json() : Json(0.91));
  json["chosen"] = "personalised";
  json["metric"] = local.is_null() ? "accuracy" : "auc";
  put(json, "difference", difference);
  json["p_value"] = 0.004;
  json["verdict"] = verdict;
  return json;
}

inline Json summary(Json sites) {
  Json json{{"job", "demo"},
            {"completed", true},
            {"ended_because", "every site reported"},
            {"config_hash", hex(sha256("seed: 1\n"))},
            {"seed", 1},
            {"rounds", 2},
            {"partial_rounds", 1},
            {"void_rounds", 0}};
  json["test"] = model(0.93);
  json["teacher"] = model(0.95);
  json["teacher"]["parameters"] = 11173962;
  json["distilled"] = model(0.88);
  json["student"] = "shufflenet_v2";
  json["student_parameters"] = 351682;
  json["classes"] = {"normal", "pneumonia"};
  json["bytes_up"] = 1000000;
  json["bytes_down"] = 2000000;
  json["bytes_up_fp32"] = 16000000;
  json["model_hash"] = std::string(64, 'b');
  json["sites"] = std::move(sites);
  json["data"] = {{"skipped", {"a.png: ends early"}}, {"duplicates", 2}, {"notes", Json::array()}};
  json["wall_seconds"] = 92.5;
  json["peak_rss_bytes"] = 1400000000;
  return json;
}

inline Json round_line(int number, std::vector<std::string> accepted, const Json& missing) {
  return {{"round", number},
          {"outcome", missing.empty() ? "complete" : "partial"},
          {"accepted", std::move(accepted)},
          {"missing", missing},
          {"samples", 400},
          {"cohort_samples", 400},
          {"train_loss", 0.7 / number},
          {"validation", model(0.9 - 0.1 / number)},
          {"bytes_up", 1},
          {"bytes_down", 1}};
}

inline const Json kNobody = Json::object();

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

inline std::size_t times(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

/// What a run that segments leaves: the same keys, AUC and its kind null, Dice and its kind there.
inline Json segmented(Json json) {
  const auto by_dice = [](Json& model, double dice) {
    for (const char* name : {"auc", "accuracy", "sensitivity", "specificity", "ece"}) put(model, name, nullptr);
    put(model, "dice", dice);
    put(model, "iou", dice - 0.1);
    put(model, "hd95", 7.25);
  };
  by_dice(json["test"], 0.83);
  by_dice(json["teacher"], 0.87);
  by_dice(json["distilled"], 0.78);
  for (auto& site : json["sites"]) {
    for (const std::string who : {"local", "global", "personalised"}) {
      put(site, who + "_auc", nullptr);
      put(site, who + "_dice", who == "local" ? 0.71 : 0.79);
    }
    site["metric"] = "dice";
  }
  json["student"] = "unext";
  json["classes"] = {"background", "object"};
  return json;
}

/// What a simulation adds: teacher and central baseline at every site.
inline Json with_references(Json json, const std::string& metric = "auc") {
  for (auto& site : json["sites"]) {
    put(site, "teacher_" + metric, 0.942);
    put(site, "central_" + metric, 0.927);
  }
  return json;
}

}  // namespace preceptor::app
