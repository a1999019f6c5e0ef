#include <iostream>
#include <thread>

#include "app/command.h"
#include "app/page.h"
#include "app/report_format.h"
#include "app/test_images.h"
#include "common/cpu.h"
#include "common/file.h"
#include "deploy/profile.h"
#include "training/metrics_json.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, reference, out;
  TestImages images;
  deploy::ProfileOptions options;
  double gate = 0;
  bool json = false;
};

std::string ms(double value) { return decimal(value, 3); }

/// What was measured, as one object: profile.json, and what the page is made of.
Result<Json> measure(const Arguments& a) {
  auto loaded = TRY(models::load_model(a.model));
  auto& model = loaded.model;
  const auto& spec = model.spec();
  std::error_code error;
  Json json{{"model", a.model},
            {"architecture", spec.model.name},
            {"image_size", spec.task.image_size},
            {"channels", spec.task.channels},
            {"parameters", model.space().trainable()},
            {"macs", models::count_macs(model.network(), spec.task)},
            {"file_bytes", fs::file_size(a.model, error)},
            {"machine", cpu_summary()},
            {"runs", a.options.runs}};
  std::optional<data::Dataset> images;
  if (!a.images.path.empty()) {
    images = TRY(a.images.read_for(spec));
    const auto metrics = training::measure(TRY(deploy::engine_outcome(model, *images)), a.images.seed);
    json["test"] = training::to_json(metrics);
    const auto main = training::headline(metrics);
    if (!(main && main->value >= a.gate))
      return fail(Code::kRefused, "{}: {} on {}; --gate wants {} before anything is timed", a.model, main ? fmt::format("{:.4f}", main->value) : "no metric",
                  a.images.path, a.gate);
  } else if (a.gate > 0) {
    return fail(Code::kInvalid, "--gate needs --data to measure on");
  }
  json["profile"] = deploy::to_json(TRY(deploy::profile(model, a.options)));
  if (!spec.structure.int8.empty()) {
    auto reference = a.reference.empty() ? TRY(deploy::without_rounding(model)) : std::move(TRY(models::load_model(a.reference)).model);
    json["float_profile"] = deploy::to_json(TRY(deploy::profile(reference, a.options)));
    json["float_model"] = a.reference.empty() ? "the same values, not rounded" : a.reference;
    if (images) json["int8_against_float"] = deploy::to_json(TRY(deploy::compare_engines(model, reference, *images)));
  }
  return json;
}

std::string latency_table(const Json& profile) {
  std::vector<std::vector<std::string>> rows;
  for (const auto& l : profile["latency_ms"])
    rows.push_back({plural(l["threads"].get<std::uint64_t>(), "thread", "threads"), ms(l["p50"]), ms(l["p95"]), ms(l["p99"]), ms(l["max"]), ms(l["cold"]), ms(l["build"])});
  const auto joules = profile["joules_an_inference"];
  return figures(profile["precision"].get<std::string>() + ", milliseconds of one image", {"", "p50", "p95", "p99", "max", "first", "engine made in"}, rows) +
         facts({{"Memory, peak", byte_text(profile["peak_rss_bytes"])},
                {"Weights, packed", byte_text(profile["weight_bytes"])},
                {"Values between operators", byte_text(profile["arena_bytes"])},
                {"Energy", joules.is_null() ? "not measured: this machine does not tell" : decimal(joules.get<double>() * 1e3, 2) + " mJ an inference, of the whole processor"}});
}

std::string metric_facts(const Json& test) {
  std::vector<std::pair<std::string, std::string>> rows{{"Images", grouped(test["images"].get<std::uint64_t>())}};
  for (const auto& [key, name] : {std::pair{"auc", "AUC"}, {"accuracy", "Accuracy"}, {"ece", "Calibration error"}, {"dice", "Dice"}, {"iou", "IoU"}})
    if (!test[key].is_null())
      rows.push_back({name, fmt::format("{} ({}–{})", decimal(test[key].get<double>()), decimal(test[std::string(key) + "_low"].get<double>()),
                                        decimal(test[std::string(key) + "_high"].get<double>()))});
  return facts(rows);
}

std::string page_of(const Json& json) {
  const auto first = json["profile"]["latency_ms"][0];
  auto body = page_header("Preceptor profile · " + html(json["architecture"].get<std::string>(), 60),
                          fmt::format("{} ms an image on {}", ms(first["p50"]), plural(first["threads"].get<std::uint64_t>(), "thread", "threads")),
                          fmt::format("{} px, {} parameters, {} on disk. Median of {} runs after warm-up.", json["image_size"].get<int>(),
                                      short_count(json["parameters"]), byte_text(json["file_bytes"]), grouped(json["runs"].get<std::uint64_t>())));
  if (json.contains("test")) body += section("Accuracy on this box’s engine", metric_facts(json["test"]));
  body += section("Latency", latency_table(json["profile"]) + (json.contains("float_profile") ? latency_table(json["float_profile"]) : ""));
  if (json.contains("int8_against_float")) {
    const auto& a = json["int8_against_float"];
    body += section("int8 beside float", facts({{"Images", grouped(a["images"].get<std::uint64_t>())},
                                                {"Classes that differ", grouped(a["label_flips"].get<std::uint64_t>())},
                                                {"Largest difference of a logit", decimal(a["largest_logit_difference"].get<double>(), 4)},
                                                {"Float model", html(json["float_model"].get<std::string>(), 200)}}));
  }
  body += section("Machine", facts({{"Processor and kernels", html(json["machine"].get<std::string>(), 300)}, {"Model file", html(json["model"].get<std::string>(), 300)}}));
  return document("Preceptor profile", body, "Written by <code>preceptor deploy profile</code>. Other work on the machine is in the times.");
}

void print(const Json& json) {
  for (const auto* key : {"profile", "float_profile"}) {
    if (!json.contains(key)) continue;
    for (const auto& l : json[key]["latency_ms"])
      std::cout << fmt::format("{:7} {} threads: p50 {} ms, p95 {}, p99 {}, max {}; first {}\n", json[key]["precision"].get<std::string>(), l["threads"].get<int>(),
                               ms(l["p50"]), ms(l["p95"]), ms(l["p99"]), ms(l["max"]), ms(l["cold"]));
    std::cout << fmt::format("        peak memory {}, weights {}, values {}\n", byte_text(json[key]["peak_rss_bytes"]), byte_text(json[key]["weight_bytes"]),
                             byte_text(json[key]["arena_bytes"]));
  }
  if (json.contains("int8_against_float"))
    std::cout << fmt::format("int8 against float: {} of {} images change their class; largest logit difference {:.4f}\n",
                             json["int8_against_float"]["label_flips"].get<std::size_t>(), json["int8_against_float"]["images"].get<std::size_t>(),
                             json["int8_against_float"]["largest_logit_difference"].get<double>());
}

Result<void> run_profile(const Arguments& a) {
  const auto json = TRY(measure(a));
  if (!a.out.empty()) {
    std::error_code error;
    fs::create_directories(a.out, error);
    TRY(write_file(fs::path(a.out) / "profile.json", json.dump(2) + "\n"));
    TRY(write_file(fs::path(a.out) / "profile.html", page_of(json)));
  }
  if (a.json)
    std::cout << json.dump(2) << "\n";
  else
    print(json);
  if (!a.out.empty() && !a.json) std::cout << "page: " << (fs::path(a.out) / "profile.html").string() << "\n";
  return {};
}

const RegisterCommand kDeployProfile{
    "deploy profile",
    {"Measure a model on this machine: latency, memory, energy, and int8 against float",
     "preceptor deploy profile runs/compress/seed-1/full.safetensors --data pneumoniamnist.npz --gate 0.9 --out runs/profile",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       const int cores = int(std::max(1u, std::thread::hardware_concurrency()));
       if (cores > 1) a->options.threads.push_back(cores);
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       a->images.add_to(app, /*path_is_flag=*/true);
       app.add_option("--gate", a->gate, "AUC or Dice on --data without which nothing is timed")->check(CLI::Range(0.0, 1.0));
       app.add_option("--against", a->reference, "float model that an int8 one is compared with; default: its own values, not rounded");
       app.add_option("--runs", a->options.runs, "timed inferences")->check(CLI::Range(10, 10000000))->capture_default_str();
       app.add_option("--threads", a->options.threads, "engines side by side, a thread each; may be repeated; default: 1 and one a core")->check(CLI::Range(1, 1024));
       app.add_option("--out", a->out, "folder for profile.json and profile.html");
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] { return finish(run_profile(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
