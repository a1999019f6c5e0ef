#pragma once
#include <CLI/CLI.hpp>

#include "data/source.h"
#include "models/flat_model.h"

namespace preceptor::app {

/// Images to measure a model file on, as a command's options name them.
struct TestImages {
  std::string path, kind, split = "test", masks = "instance";
  std::uint64_t seed = 1;

  /// --kind, --masks, --split, --seed; and where the path is no argument of its own, --data.
  void add_to(CLI::App& app, bool path_is_flag);
  /// The reader's options for images as this model takes them.
  data::SourceOptions source_for(const models::ModelSpec& spec) const;
  /// Whether an image of this split is asked for.
  bool wanted(data::Split split) const;
  /// The images of the split, as the model takes them; of a source without splits all. skipped: unreadable files.
  /// Errors: kInvalid where they are for another task or other classes, or there are none.
  Result<data::Dataset> read_for(const models::ModelSpec& spec, std::vector<std::string>* skipped = nullptr) const;
};

}  // namespace preceptor::app
