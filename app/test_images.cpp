#include "app/test_images.h"

#include <filesystem>

#include "training/training.h"

namespace preceptor::app {
namespace {

/// Default reader of a path.
std::string kind_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return "medmnist";
  return std::filesystem::is_directory(std::filesystem::path(path) / "labels", error) ? "masks" : "folder";
}

}  // namespace

void TestImages::add_to(CLI::App& app, bool path_is_flag) {
  app.add_option(path_is_flag ? "--data" : "data", path, "MedMNIST .npz, a folder of images, or one with images/ and labels/")->required(!path_is_flag);
  app.add_option("--kind", kind, "reader; default by what the path is: medmnist, folder or masks");
  app.add_option("--masks", masks, "what label maps hold")->check(CLI::IsMember({"instance", "class"}))->capture_default_str();
  app.add_option("--split", split)->check(CLI::IsMember({"train", "validation", "test", "all"}))->capture_default_str();
  app.add_option("--seed", seed, "of the bootstrap")->capture_default_str();
}

data::SourceOptions TestImages::source_for(const models::ModelSpec& spec) const {
  data::SourceOptions options;
  options.path = path;
  options.kind = kind.empty() ? kind_of(path) : kind;
  options.masks = masks;
  if (masks == "class") options.classes = spec.task.classes;  // the last of them need not occur here
  options.image_size = spec.task.image_size;
  options.channels = spec.task.channels;
  return options;
}

bool TestImages::wanted(data::Split has) const {
  const auto named = split == "train" ? data::Split::kTrain : split == "validation" ? data::Split::kValidation : data::Split::kTest;
  return split == "all" || has == named || has == data::Split::kUnassigned;
}

Result<data::Dataset> TestImages::read_for(const models::ModelSpec& spec, std::vector<std::string>* skipped) const {
  const auto source = TRY(data::read_source(source_for(spec), seed));
  TRY(training::check_task(spec.model, source.images));
  if (int(source.images.classes.size()) != spec.task.classes)
    return fail(Code::kInvalid, "{} has {} classes and the model {}; is it the right data?", path, source.images.classes.size(), spec.task.classes);
  std::vector<std::size_t> index;
  for (std::size_t i = 0; i < source.splits.size(); ++i)
    if (wanted(source.splits[i])) index.push_back(i);
  if (index.empty()) return fail(Code::kInvalid, "{} has no image in its {} split", path, split);
  if (skipped) *skipped = source.skipped;
  return source.images.subset(index);
}

}  // namespace preceptor::app
