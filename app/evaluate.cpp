#include <iostream>

#include "app/command.h"
#include "coordinator/job.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string model, data, kind, split = "test";
  std::uint64_t seed = 1;
  bool json = false;
};

/// The images of one split; all of them where the source has no split.
data::Dataset choose(const data::Source& source, const std::string& split) {
  const auto wanted = split == "train" ? data::Split::kTrain : split == "validation" ? data::Split::kValidation : data::Split::kTest;
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < source.splits.size(); ++i)
    if (split == "all" || source.splits[i] == wanted || source.splits[i] == data::Split::kUnassigned) index.push_back(i);
  return source.images.subset(index);
}

Result<void> evaluate(const Arguments& a) {
  auto loaded = TRY(models::load_model(a.model));
  const auto& task = loaded.model.spec().task;
  data::SourceOptions options;
  options.path = a.data;
  options.kind = !a.kind.empty() ? a.kind : std::filesystem::is_directory(a.data) ? "folder" : "medmnist";
  options.image_size = task.image_size;
  options.channels = task.channels;
  const auto source = TRY(data::read_source(options, a.seed));
  if (int(source.images.classes.size()) != task.classes)
    return fail(Code::kInvalid, "{} has {} classes and the model {}; is it the right data?", a.data, source.images.classes.size(), task.classes);
  const auto images = choose(source, a.split);
  if (images.size() == 0) return fail(Code::kInvalid, "{} has no image in its {} split", a.data, a.split);
  const auto metrics = coordinator::evaluate(loaded.model, images, a.seed);
  if (a.json) {
    auto json = coordinator::to_json(metrics);
    json["split"] = a.split;
    json["skipped"] = source.skipped;
    std::cout << json.dump(2) << "\n";
    return {};
  }
  std::cout << fmt::format("{} ({} split, {} images)\n", a.data, a.split, metrics.images);
  const auto line = [](const char* name, const std::optional<training::Estimate>& e) {
    std::cout << (e ? fmt::format("  {:12} {:.4f}  (95 % {:.4f} to {:.4f})\n", name, e->value, e->low, e->high)
                    : fmt::format("  {:12} not defined on this set\n", name));
  };
  line("AUC", metrics.auc);
  line("accuracy", metrics.accuracy);
  line("sensitivity", metrics.sensitivity);
  line("specificity", metrics.specificity);
  line("ECE", metrics.ece);
  return {};
}

const RegisterCommand kEvaluate{
    "evaluate",
    {"Measure a model file on data", "preceptor evaluate runs/pneumonia/model.safetensors pneumoniamnist.npz --json",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       app.add_option("data", a->data, "MedMNIST .npz, or a folder of images")->required();
       app.add_option("--kind", a->kind, "reader; default: folder for a folder, medmnist for a file");
       app.add_option("--split", a->split)->check(CLI::IsMember({"train", "validation", "test", "all"}))->capture_default_str();
       app.add_option("--seed", a->seed, "of the bootstrap")->capture_default_str();
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] { return finish(evaluate(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
