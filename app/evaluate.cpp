#include <iostream>

#include "app/command.h"
#include "coordinator/job.h"
#include "data/masks.h"
#include "training/segment.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string model, data, kind, split = "test", masks = "instance";
  std::uint64_t seed = 1;
  bool json = false, tiled = false;
};

bool wanted(data::Split has, const std::string& split) {
  const auto named = split == "train" ? data::Split::kTrain : split == "validation" ? data::Split::kValidation : data::Split::kTest;
  return split == "all" || has == named || has == data::Split::kUnassigned;
}

/// The images of one split; all of them where the source has no split.
data::Dataset choose(const data::Source& source, const std::string& split) {
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < source.splits.size(); ++i)
    if (wanted(source.splits[i], split)) index.push_back(i);
  return source.images.subset(index);
}

/// Default reader of a path.
std::string kind_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return "medmnist";
  return std::filesystem::is_directory(std::filesystem::path(path) / "labels", error) ? "masks" : "folder";
}

/// Images at their own size, cut into tiles of the model's; what a clinic would do with large images.
Result<training::Metrics> evaluate_tiled(models::FlatModel& model, const data::SourceOptions& options, const Arguments& a) {
  const auto& task = model.spec().task;
  model.network().eval();
  const auto network = [&](const at::Tensor& images) { return model.forward(images); };
  std::vector<training::SegmentationScore> scores;
  for (const auto& entry : TRY(data::list_masked(options))) {
    if (!wanted(entry.split, a.split)) continue;
    const auto pair = data::read_masked(options, entry);
    if (!pair) return in(entry.image, pair.error());
    const auto& shape = pair->image.shape;
    const auto image = training::normalised(pair->image.pixels, shape.height, shape.width, shape.channels);
    const auto classes = training::class_map(training::segment(network, image, task.image_size));
    if (*std::ranges::max_element(pair->mask) >= task.classes)
      return fail(Code::kInvalid, "{}: has a class that the model does not know", entry.label);
    scores.push_back(training::score_masks(classes, pair->mask, shape.height, shape.width, task.classes));
  }
  if (scores.empty()) return fail(Code::kInvalid, "{} has no image in its {} split", a.data, a.split);
  return training::measure(scores, a.seed);
}

Result<void> print(const Arguments& a, const training::Metrics& metrics, const std::vector<std::string>& skipped) {
  if (a.json) {
    auto json = coordinator::to_json(metrics);
    json["split"] = a.split;
    json["skipped"] = skipped;
    std::cout << json.dump(2) << "\n";
    return {};
  }
  std::cout << fmt::format("{} ({} split, {} images)\n", a.data, a.split, metrics.images);
  const auto line = [](const char* name, const std::optional<training::Estimate>& e) {
    std::cout << (e ? fmt::format("  {:12} {:.4f}  (95 % {:.4f} to {:.4f})\n", name, e->value, e->low, e->high)
                    : fmt::format("  {:12} not defined on this set\n", name));
  };
  if (metrics.dice) {
    line("Dice", metrics.dice);
    line("IoU", metrics.iou);
    line("HD95, px", metrics.hd95);
    return {};
  }
  line("AUC", metrics.auc);
  line("accuracy", metrics.accuracy);
  line("sensitivity", metrics.sensitivity);
  line("specificity", metrics.specificity);
  line("ECE", metrics.ece);
  return {};
}

Result<void> evaluate(const Arguments& a) {
  auto loaded = TRY(models::load_model(a.model));
  const auto& task = loaded.model.spec().task;
  data::SourceOptions options;
  options.path = a.data;
  options.kind = !a.kind.empty() ? a.kind : kind_of(a.data);
  options.masks = a.masks;
  if (a.masks == "class") options.classes = task.classes;  // the last of them need not occur here
  options.image_size = task.image_size;
  options.channels = task.channels;
  if (a.tiled) {
    if (options.kind != "masks") return fail(Code::kInvalid, "--tiled is for images with masks (--kind masks), not for '{}'", options.kind);
    data::Dataset masks;
    masks.segmentation = true;
    TRY(training::check_task(loaded.model.spec().model, masks));
    return print(a, TRY(evaluate_tiled(loaded.model, options, a)), {});
  }
  const auto source = TRY(data::read_source(options, a.seed));
  TRY(training::check_task(loaded.model.spec().model, source.images));
  if (int(source.images.classes.size()) != task.classes)
    return fail(Code::kInvalid, "{} has {} classes and the model {}; is it the right data?", a.data, source.images.classes.size(), task.classes);
  const auto images = choose(source, a.split);
  if (images.size() == 0) return fail(Code::kInvalid, "{} has no image in its {} split", a.data, a.split);
  return print(a, coordinator::evaluate(loaded.model, images, a.seed), source.skipped);
}

const RegisterCommand kEvaluate{
    "evaluate",
    {"Measure a model file on data", "preceptor evaluate runs/pneumonia/model.safetensors pneumoniamnist.npz --json",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       app.add_option("data", a->data, "MedMNIST .npz, a folder of images, or one with images/ and labels/")->required();
       app.add_option("--kind", a->kind, "reader; default by what the path is: medmnist, folder or masks");
       app.add_option("--masks", a->masks, "what label maps hold")->check(CLI::IsMember({"instance", "class"}))->capture_default_str();
       app.add_flag("--tiled", a->tiled, "segment images at their own size, in tiles of the model's; otherwise they are resized to it");
       app.add_option("--split", a->split)->check(CLI::IsMember({"train", "validation", "test", "all"}))->capture_default_str();
       app.add_option("--seed", a->seed, "of the bootstrap")->capture_default_str();
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] { return finish(evaluate(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
