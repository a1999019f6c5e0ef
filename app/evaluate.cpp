#include <iostream>

#include "app/command.h"
#include "app/test_images.h"
#include "coordinator/job.h"
#include "data/masks.h"
#include "training/segment.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string model;
  TestImages images;
  bool json = false, tiled = false;
};

/// Images at their own size, cut into tiles of the model's; what a clinic would do with large images.
Result<training::Metrics> evaluate_tiled(models::FlatModel& model, const data::SourceOptions& options, const Arguments& a) {
  const auto& task = model.spec().task;
  model.network().eval();
  const auto network = [&](const at::Tensor& images) { return model.forward(images); };
  std::vector<training::SegmentationScore> scores;
  for (const auto& entry : TRY(data::list_masked(options))) {
    if (!a.images.wanted(entry.split)) continue;
    const auto pair = data::read_masked(options, entry);
    if (!pair) return in(entry.image, pair.error());
    const auto& shape = pair->image.shape;
    const auto image = training::normalised(pair->image.pixels, shape.height, shape.width, shape.channels);
    const auto classes = training::class_map(training::segment(network, image, task.image_size));
    if (*std::ranges::max_element(pair->mask) >= task.classes)
      return fail(Code::kInvalid, "{}: has a class that the model does not know", entry.label);
    scores.push_back(training::score_masks(classes, pair->mask, shape.height, shape.width, task.classes));
  }
  if (scores.empty()) return fail(Code::kInvalid, "{} has no image in its {} split", a.images.path, a.images.split);
  return training::measure(scores, a.images.seed);
}

Result<void> print(const Arguments& a, const training::Metrics& metrics, const std::vector<std::string>& skipped) {
  if (a.json) {
    auto json = coordinator::to_json(metrics);
    json["split"] = a.images.split;
    json["skipped"] = skipped;
    std::cout << json.dump(2) << "\n";
    return {};
  }
  std::cout << fmt::format("{} ({} split, {} images)\n", a.images.path, a.images.split, metrics.images);
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
  const auto& spec = loaded.model.spec();
  if (a.tiled) {
    const auto options = a.images.source_for(spec);
    if (options.kind != "masks") return fail(Code::kInvalid, "--tiled is for images with masks (--kind masks), not for '{}'", options.kind);
    data::Dataset masks;
    masks.segmentation = true;
    TRY(training::check_task(spec.model, masks));
    return print(a, TRY(evaluate_tiled(loaded.model, options, a)), {});
  }
  std::vector<std::string> skipped;
  const auto images = TRY(a.images.read_for(spec, &skipped));
  return print(a, coordinator::evaluate(loaded.model, images, a.images.seed), skipped);
}

const RegisterCommand kEvaluate{
    "evaluate",
    {"Measure a model file on data", "preceptor evaluate runs/pneumonia/model.safetensors pneumoniamnist.npz --json",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       a->images.add_to(app, /*path_is_flag=*/false);
       app.add_flag("--tiled", a->tiled, "segment images at their own size, in tiles of the model's; otherwise they are resized to it");
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] { return finish(evaluate(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
