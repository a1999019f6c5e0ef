#include "models/stem.h"

#include <array>

namespace preceptor::models {

Result<FlatModel> create_at_size(ModelOptions model, const TaskOptions& task, const std::string& device) {
  using Stems = std::array<const char*, 3>;
  const auto stems = task.image_size <= 48    ? Stems{"small", "half", "standard"}
                     : task.image_size <= 112 ? Stems{"half", "small", "standard"}
                                              : Stems{"standard", "half", "small"};
  TRY(zoo().find(model.name));  // an unknown name has no stem to ask for
  std::vector<std::string> reasons;
  for (const auto* stem : stems) {
    model.stem = stem;
    auto created = FlatModel::create({model, task}, device);
    if (created || created.error().code != Code::kInvalid) return created;
    reasons.push_back(fmt::format("{}: {}", stem, created.error().message));
  }
  return fail(Code::kInvalid, "{} at {} px: no stem can take it ({})", model.name, task.image_size, fmt::join(reasons, "; "));
}

}  // namespace preceptor::models
