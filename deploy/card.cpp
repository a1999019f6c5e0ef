#include "deploy/card.h"

#include <algorithm>
#include <cmath>

#include "data/manifest.h"
#include "deploy/profile.h"
#include "training/metrics_json.h"

namespace preceptor::deploy {

using Json = nlohmann::ordered_json;

namespace {

std::vector<std::size_t> test_images(const data::Source& source) {
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < source.splits.size(); ++i)
    if (source.splits[i] == data::Split::kTest || source.splits[i] == data::Split::kUnassigned) index.push_back(i);
  return index;
}

/// The outcome on some of its images.
training::Outcome part(const training::Outcome& whole, const std::vector<std::size_t>& index) {
  training::Outcome some;
  some.classes = whole.classes;
  for (const auto i : index) {
    if (!whole.scores.empty()) some.scores.push_back(whole.scores[i]);
    if (whole.labels.empty()) continue;
    some.labels.push_back(whole.labels[i]);
    some.probabilities.insert(some.probabilities.end(), whole.probabilities.begin() + std::ptrdiff_t(i * whole.classes),
                              whole.probabilities.begin() + std::ptrdiff_t((i + 1) * whole.classes));
  }
  return some;
}

/// Softmax of logits over a temperature, from the softmax of the logits.
training::Outcome cooled(training::Outcome outcome, double temperature) {
  for (std::size_t i = 0; i < outcome.labels.size(); ++i) {
    const auto row = std::span(outcome.probabilities).subspan(i * outcome.classes, outcome.classes);
    double sum = 0;
    for (auto& p : row) p = float(std::pow(double(p), 1 / temperature)), sum += p;
    for (auto& p : row) p = float(p / sum);
  }
  return outcome;
}

Json by_site(const data::Source& source, const std::vector<std::size_t>& index, const training::Outcome& outcome, std::uint64_t seed) {
  auto sites = Json::array();
  for (std::size_t s = 0; s < source.site_names.size(); ++s) {
    std::vector<std::size_t> mine;
    for (std::size_t i = 0; i < index.size(); ++i)
      if (source.sites[index[i]] == std::int32_t(s)) mine.push_back(i);
    if (mine.empty()) continue;
    auto json = training::to_json(training::measure(part(outcome, mine), seed));
    json["site"] = source.site_names[s];
    sites.push_back(std::move(json));
  }
  return sites;
}

/// Recall of each class: the subgroup that every data set tells of.
Json by_class(const training::Outcome& outcome, const std::vector<std::string>& names, std::uint64_t seed) {
  auto classes = Json::array();
  for (std::size_t c = 0; c < outcome.classes; ++c) {
    std::vector<std::size_t> mine;
    for (std::size_t i = 0; i < outcome.labels.size(); ++i)
      if (outcome.labels[i] == std::int32_t(c)) mine.push_back(i);
    if (mine.empty()) continue;
    const auto metrics = training::measure(part(outcome, mine), seed);
    classes.push_back({{"class", names[c]}, {"images", mine.size()}, {"recall", metrics.accuracy->value}, {"recall_low", metrics.accuracy->low}, {"recall_high", metrics.accuracy->high}});
  }
  return classes;
}

Json parsed(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return {};
  auto json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? Json() : json;
}

Json text(const std::map<std::string, std::string>& metadata, const char* key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? Json() : Json(found->second);
}

Json value(const Json& object, const char* key) { return object.is_object() && object.contains(key) ? object[key] : Json(); }

Json sites_of(const Json& run) {
  auto sites = Json::array();
  for (const auto& site : value(run, "sites"))
    if (site.is_object())
      sites.push_back({{"site", value(site, "name")}, {"auc", value(site, "global_auc")}, {"auc_low", value(site, "global_auc_low")}, {"auc_high", value(site, "global_auc_high")},
                       {"dice", value(site, "global_dice")}, {"dice_low", value(site, "global_dice_low")}, {"dice_high", value(site, "global_dice_high")},
                       {"images", value(site, "test")}, {"verdict", value(site, "verdict")}});
  return sites;
}

std::vector<std::string> limits_of(const Json& card, const models::TaskOptions& task) {
  std::vector<std::string> limits{
      "Not a medical device. It was measured on the images named here and on nothing else.",
      fmt::format("Images are brought to {0} × {0} pixels, {1}; what is smaller than that is not seen.", task.image_size, task.channels == 1 ? "grey" : "in colour"),
      "It always names one of its classes; an image that shows something else gets an answer unless its brightness or contrast betrays it."};
  if (card["metrics"].is_null()) limits.push_back("Nothing was measured for this card: give images with --data.");
  if (card["by_site"].empty()) limits.push_back("How it does by site is not known.");
  if (card["profile"].is_null()) limits.push_back("Its speed on the box where it is to run was not measured.");
  if (card["lineage"]["steps"].is_null() && card["lineage"]["run"].is_null()) limits.push_back("Where it comes from is known by its file's metadata alone.");
  limits.push_back("Sex, age, devices and other subgroups of patients are not in the data, so nothing is known of them.");
  return limits;
}

}  // namespace

Result<Json> make_card(models::LoadedModel& loaded, const CardInputs& inputs) {
  auto& model = loaded.model;
  auto spec = model.spec();
  const auto contract = TRY(training::read_contract(loaded, inputs.file));
  Json card{{"model", inputs.file}, {"architecture", spec.model.name}, {"paper", TRY(models::zoo().find(spec.model.name))->paper}};
  card["parameters"] = model.space().trainable();
  card["macs"] = models::count_macs(model.network(), spec.task);
  card["int8_layers"] = spec.structure.int8.size();
  card["classes"] = contract.classes;
  card["intended_use"] = !inputs.intended_use.empty() ? inputs.intended_use
                                                      : fmt::format("To tell {} apart, in images like those that it was trained on, as a second opinion in research.",
                                                                    fmt::join(contract.classes, ", "));
  card["input"] = {{"channels", spec.task.channels}, {"image_size", spec.task.image_size}, {"brightness", {contract.brightness_low, contract.brightness_high}},
                   {"contrast", {contract.contrast_low, contract.contrast_high}}, {"normalisation", "pixel / 127.5 − 1"}};
  const auto& metadata = loaded.metadata;
  card["lineage"] = {{"job", text(metadata, "job")}, {"config_hash", text(metadata, "config_hash")}, {"model_hash", model_hash(model.store())}, {"steps", parsed(metadata, "lineage")}};
  const auto& run = inputs.run;
  card["lineage"]["run"] = run.is_null() ? Json()
                                         : Json{{"seed", value(run, "seed")}, {"rounds", value(run, "rounds")}, {"partial_rounds", value(run, "partial_rounds")},
                                                {"teacher", value(run, "teacher")}, {"test_data_sha256", value(value(run, "data"), "test_sha256")},
                                                {"model_hash", value(run, "model_hash")}};
  card["metrics"] = Json();
  card["calibration"] = {{"temperature", contract.temperature}};
  card["by_site"] = sites_of(run);
  card["by_class"] = Json::array();
  if (inputs.images) {
    const auto& source = *inputs.images;
    const auto index = test_images(source);
    const auto images = source.images.subset(index);
    const auto outcome = TRY(engine_outcome(model, images));
    const auto metrics = training::measure(outcome, inputs.seed);
    card["metrics"] = training::to_json(metrics);
    card["metrics"]["data_sha256"] = data::content_hash(images);
    if (!source.site_names.empty()) card["by_site"] = by_site(source, index, outcome, inputs.seed);
    if (!outcome.labels.empty()) {
      card["by_class"] = by_class(outcome, contract.classes, inputs.seed);
      const auto after = training::measure(cooled(outcome, contract.temperature), inputs.seed);
      if (metrics.ece) card["calibration"]["ece"] = metrics.ece->value;
      if (after.ece) card["calibration"]["ece_with_temperature"] = after.ece->value;
    }
  }
  card["profile"] = inputs.profile;
  card["limits"] = limits_of(card, spec.task);
  return card;
}

}  // namespace preceptor::deploy
