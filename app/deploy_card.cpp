#include <iostream>

#include "app/command.h"
#include "app/page.h"
#include "app/report_format.h"
#include "app/report_json.h"
#include "app/test_images.h"
#include "common/file.h"
#include "deploy/card.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMaxJson = 32 << 20;

struct Arguments {
  std::string model, run, profile, intended, out;
  TestImages images;
  bool json = false;
};

Result<Json> read_json(const fs::path& file) {
  const auto text = TRY(read_text(file, kMaxJson));
  auto json = parse_object<Json>(text, 100000);
  if (!json) return fail(Code::kCorrupt, "{}: {}", file.string(), json.error());
  return std::move(*json);
}

/// A number of the card, or a dash.
std::string number(const Json& json, const char* key, int digits = 3) {
  return json.is_object() && json.contains(key) && json[key].is_number() ? decimal(json[key].get<double>(), digits) : "–";
}
std::string interval(const Json& json, const std::string& key) {
  const auto value = number(json, key.c_str());
  return value == "–" ? value : value + " <small>" + number(json, (key + "_low").c_str()) + "–" + number(json, (key + "_high").c_str()) + "</small>";
}
std::string shown(const Json& json) { return json.is_null() ? "not recorded" : html(json.is_string() ? json.get<std::string>() : json.dump(), 300); }

std::string metric_section(const Json& card) {
  const auto& m = card["metrics"];
  std::string text;
  if (!m.is_null()) {
    const bool masks = m["dice"].is_number();
    text += figures(fmt::format("{} images that the model had not seen in training", m["images"].get<std::size_t>()), {"", "value, 95 %"},
                    masks ? std::vector<std::vector<std::string>>{{"Dice", interval(m, "dice")}, {"IoU", interval(m, "iou")}, {"HD95, px", interval(m, "hd95")}}
                          : std::vector<std::vector<std::string>>{{"AUC", interval(m, "auc")}, {"Accuracy", interval(m, "accuracy")}, {"Sensitivity", interval(m, "sensitivity")},
                                                                  {"Specificity", interval(m, "specificity")}});
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& site : card["by_site"])
    rows.push_back({"<bdi>" + html(site["site"].is_string() ? site["site"].get<std::string>() : "?", 80) + "</bdi>", number(site, "images", 0),
                    interval(site, number(site, "dice") == "–" ? "auc" : "dice")});
  if (!rows.empty()) text += figures("By site", {"site", "images", "AUC or Dice, 95 %"}, rows);
  rows.clear();
  for (const auto& c : card["by_class"]) rows.push_back({html(c["class"].get<std::string>(), 80), number(c, "images", 0), interval(c, "recall")});
  if (!rows.empty()) text += figures("By class", {"class", "images", "recognised, 95 %"}, rows);
  return section("How good is it, and for whom?", text.empty() ? note("Nothing was measured.") : text);
}

std::string lineage_section(const Json& card) {
  const auto& l = card["lineage"];
  auto text = facts({{"Job", shown(l["job"])}, {"Configuration (SHA-256)", shown(l["config_hash"])}, {"Parameters (SHA-256)", shown(l["model_hash"])}});
  std::vector<std::vector<std::string>> rows;
  if (l["steps"].is_array())
    for (const auto& step : l["steps"]) {
      const auto figures_of = step.is_object() && step.contains("figures") ? step["figures"] : Json();
      rows.push_back({html(step.is_object() && step.contains("step") && step["step"].is_string() ? step["step"].get<std::string>() : "?", 40),
                      number(figures_of, "headline"), number(figures_of, "parameters", 0), number(figures_of, "bytes", 0), number(figures_of, "milliseconds")});
    }
  if (!rows.empty()) text += figures("What was done, and what it cost", {"step", "metric after it", "parameters", "bytes", "ms"}, rows);
  if (l["run"].is_object())
    text += facts({{"Rounds of federation", shown(l["run"]["rounds"])}, {"Seed", shown(l["run"]["seed"])}, {"Test data (SHA-256)", shown(l["run"]["test_data_sha256"])}});
  return section("Where does it come from?", text);
}

std::string page_of(const Json& card) {
  std::vector<std::string> names;
  for (const auto& name : card["classes"]) names.push_back(html(name.get<std::string>(), 60));
  auto body = page_header("Preceptor model card · " + html(card["architecture"].get<std::string>(), 60), fmt::format("{}", fmt::join(names, ", ")),
                          html(card["intended_use"].get<std::string>(), 1000));
  body += metric_section(card);
  const auto& c = card["calibration"];
  body += section("Can its confidence be believed?", facts({{"Temperature", number(c, "temperature")}, {"Calibration error as it is", number(c, "ece")},
                                                            {"Calibration error with the temperature", number(c, "ece_with_temperature")}}));
  body += lineage_section(card);
  const auto& input = card["input"];
  body += section("What goes in", facts({{"Size", fmt::format("{0} × {0} px, {1}", input["image_size"].get<int>(), input["channels"] == 1 ? "grey" : "colour")},
                                         {"Mean brightness", fmt::format("{}–{}", decimal(input["brightness"][0].get<double>(), 0), decimal(input["brightness"][1].get<double>(), 0))},
                                         {"Contrast", fmt::format("{}–{}", decimal(input["contrast"][0].get<double>(), 0), decimal(input["contrast"][1].get<double>(), 0))},
                                         {"Normalisation", html(input["normalisation"].get<std::string>())}}));
  if (const auto& p = card["profile"]; p.is_object() && p.contains("profile") && p["profile"].contains("latency_ms") && !p["profile"]["latency_ms"].empty())
    body += section("What it costs on a box", facts({{"Machine", shown(p.contains("machine") ? p["machine"] : Json())},
                                                     {"Median, one image", number(p["profile"]["latency_ms"][0], "p50") + " ms"},
                                                     {"File", number(p, "file_bytes", 0) + " bytes"}}));
  std::string limits = "<ul>\n";
  for (const auto& limit : card["limits"]) limits += "<li>" + html(limit.get<std::string>()) + "</li>\n";
  body += section("Limits", limits + "</ul>\n");
  return document("Preceptor model card", body, "Written by <code>preceptor deploy card</code>.");
}

Result<void> write_card(const Arguments& a) {
  auto loaded = TRY(models::load_model(a.model));
  deploy::CardInputs inputs{a.model, a.intended, {}, {}, {}, a.images.seed};
  if (!a.run.empty()) inputs.run = TRY(read_json(fs::path(a.run) / "summary.json"));
  if (!a.profile.empty()) inputs.profile = TRY(read_json(a.profile));
  if (!a.images.path.empty()) {
    TRY(a.images.read_for(loaded.model.spec()));  // its checks
    inputs.images = TRY(data::read_source(a.images.source_for(loaded.model.spec()), a.images.seed));
  }
  const auto card = TRY(deploy::make_card(loaded, inputs));
  std::error_code error;
  fs::create_directories(a.out, error);
  TRY(write_file(fs::path(a.out) / "card.json", card.dump(2) + "\n"));
  TRY(write_file(fs::path(a.out) / "card.html", page_of(card)));
  if (a.json)
    std::cout << card.dump(2) << "\n";
  else
    std::cout << "card: " << (fs::path(a.out) / "card.html").string() << "\n";
  return {};
}

const RegisterCommand kDeployCard{
    "deploy card",
    {"Write a model card: use, origin, metrics by site and class, calibration, cost, limits",
     "preceptor deploy card runs/demo/model.safetensors --run runs/demo --data images/ --out runs/card",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       a->images.add_to(app, /*path_is_flag=*/true);
       app.add_option("--run", a->run, "run directory that the model comes from");
       app.add_option("--profile", a->profile, "profile.json of `deploy profile`");
       app.add_option("--intended-use", a->intended, "a sentence for the card's head");
       app.add_option("--out", a->out, "folder for card.json and card.html")->required();
       app.add_flag("--json", a->json, "print the card's JSON as well");
       return [a] { return finish(write_card(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
