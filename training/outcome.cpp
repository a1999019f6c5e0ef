#include "training/outcome.h"

#include <torch/torch.h>

#include <algorithm>

#include "training/segment.h"

namespace preceptor::training {
namespace {

Predictions predictions(const Outcome& outcome) { return {outcome.probabilities, outcome.labels, outcome.classes}; }
bool segments(const Outcome& outcome) { return !outcome.scores.empty(); }

}  // namespace

Outcome outcome_of(const Network& network, const data::Dataset& dataset, int batch) {
  // Activations of a segmentation network are many times its image: 16 images of 256 px at a time, 4 of 512.
  if (dataset.segmentation) batch = std::clamp(int((std::size_t{1} << 20) / dataset.mask_bytes()), 1, batch);
  Outcome outcome;
  outcome.classes = dataset.classes.size();
  if (!dataset.segmentation) {
    const auto soft = logits_of(network, dataset, {}, 0, -1, batch).softmax(1).contiguous();
    outcome.probabilities.assign(soft.data_ptr<float>(), soft.data_ptr<float>() + soft.numel());
    outcome.labels = dataset.labels;
    return outcome;
  }
  for_each_batch(network, dataset, batch, [&](std::span<const std::size_t> index, const at::Tensor& logits) {
    for (std::size_t i = 0; i < index.size(); ++i)
      outcome.scores.push_back(score_masks(class_map(logits[std::int64_t(i)]), dataset.mask(index[i]), dataset.height, dataset.width,
                                           int(outcome.classes)));
  });
  return outcome;
}

Outcome outcome_of(models::FlatModel& model, const data::Dataset& dataset, int batch) {
  model.network().eval();
  return outcome_of([&](const at::Tensor& images) { return model.forward(images); }, dataset, batch);
}

Metrics measure(const Outcome& outcome, std::uint64_t seed) {
  return segments(outcome) ? measure(outcome.scores, seed) : measure(predictions(outcome), seed);
}

std::optional<PairedTest> compare(const Outcome& a, const Outcome& b, std::uint64_t seed) {
  return segments(a) ? compare(a.scores, b.scores, seed) : compare(predictions(a), predictions(b), seed);
}

double headline(const Outcome& outcome) {
  if (!segments(outcome)) return auc(predictions(outcome)).value_or(accuracy(predictions(outcome)).value_or(0));
  double sum = 0;
  for (const auto& score : outcome.scores) sum += score.dice;
  return sum / double(outcome.scores.size());
}

}  // namespace preceptor::training
