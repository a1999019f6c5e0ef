#include "node/model_source.h"

#include <algorithm>

namespace preceptor::node {

using transport::ModelPatch;

void ModelSource::make_from_sums(const Sums& sums, std::optional<HeldModel> kept) {
  sums_ = sums;
  if (kept) held_ = std::move(*kept);
}

Result<ModelSource::Next> ModelSource::want(Wanted wanted) {
  if (wanted.bytes == 0) return fail(Code::kRefused, "the coordinator offers an empty model");
  coming_ = std::move(wanted);
  path_.clear();
  deltas_.clear();
  if (held_.blob && held_.digest == coming_->model) return take(held_.blob, held_.recomputed);
  path_ = path();
  if (!path_.empty()) return next_patch();
  // The newest sum is always published: who was there in the round before can make the model.
  if (sums_ && held_.recomputed && coming_->round <= held_.round + 1 && coming_->model != sums_->initial)
    return fail(Code::kRefused, "no published sum leads from this site's model of round {} to the coordinator's of round {}", held_.round, coming_->round);
  return whole();
}

/// Patches from the held model to the one that is wanted; empty: none do.
std::vector<ModelPatch> ModelSource::path() const {
  if (!held_.blob) return {};
  const auto first = std::ranges::find(coming_->patches, held_.digest, &ModelPatch::base);
  std::uint64_t bytes = 0;
  auto after = held_.round;
  for (auto patch = first; patch != coming_->patches.end(); ++patch) {
    if (!follows(*patch, after, bytes)) return {};
    bytes += patch->bytes;
    after = patch->round + 1;
  }
  return {first, coming_->patches.end()};
}

/// Whether a patch may come behind others that have `bytes_before` together, the last of a round before `after`: each
/// round moves the model once. Together they are shorter than the model, but for a single sum.
bool ModelSource::follows(const ModelPatch& patch, std::uint32_t after, std::uint64_t bytes_before) const {
  if (patch.round < after || patch.round >= coming_->round) return false;
  if (sums_ && patch.bytes != sums_->bytes) return false;
  if (sums_ && bytes_before == 0) return true;
  return patch.bytes > 0 && patch.bytes < coming_->bytes && bytes_before < coming_->bytes - patch.bytes;
}

ModelSource::Next ModelSource::next_patch() const {
  const auto& patch = path_[deltas_.size()];
  return Get{patch.delta, patch.bytes};
}

ModelSource::Next ModelSource::whole() {
  path_.clear();
  deltas_.clear();
  return Get{coming_->model, coming_->bytes};
}

Result<ModelSource::Next> ModelSource::arrived(Bytes blob) {
  if (path_.empty()) return take(std::make_shared<const Bytes>(std::move(blob)), sums_ && coming_->model == sums_->initial);
  deltas_.push_back(std::move(blob));
  if (deltas_.size() < path_.size()) return next_patch();
  return Patch{held_.blob, path_, std::move(deltas_), coming_->model};
}

Result<ModelSource::Next> ModelSource::patched(Patched answer) {
  if (answer.model) return take(std::move(answer.model), held_.recomputed);
  if (sums_) return fail(Code::kRefused, "the coordinator's model is not what its published sums make of this site's: {}", answer.why);
  return whole();
}

ModelSource::Next ModelSource::take(transport::Blob model, bool recomputed) {
  // A chain of sums begins with the plan's first model, also when a coordinator begins anew; until then its rounds only ascend.
  const bool first = !sums_ || coming_->model == sums_->initial;
  held_ = {std::move(model), coming_->model, first ? coming_->round : std::max(held_.round, coming_->round), recomputed};
  coming_.reset();
  path_.clear();
  deltas_.clear();
  return Here{};
}

bool ModelSource::vouched(const Digest& model) {
  if (!sums_ || held_.recomputed || !held_.blob || held_.digest != model) return false;
  held_.recomputed = true;
  return true;
}

}  // namespace preceptor::node
