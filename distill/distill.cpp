#include "distill/distill.h"

#include <torch/torch.h>

namespace preceptor::distill {
namespace {

constexpr int kDefaultViews = 4;

class DistillationObjective : public training::Objective {
 public:
  DistillationObjective(const DistillationOptions& options, SoftLoss soft, std::unique_ptr<training::Objective> hard, LogitCache cache)
      : options_(options), soft_(std::move(soft)), hard_(std::move(hard)), cache_(std::move(cache)) {}
  at::Tensor loss(const training::Batch& batch, const at::Tensor& logits) override {
    const auto teacher = cache_.rows(batch).to(logits.device());
    // A network with a head for each (DeiT, arXiv:2012.12877) hears the labels with one and the teacher with the other.
    const bool two = training::two_headed(logits);
    const auto to_labels = two ? logits.select(1, 0) : logits, to_teacher = two ? logits.select(1, 1) : logits;
    return options_.hard_weight * hard_->loss(batch, to_labels) +
           options_.soft_weight * soft_(to_teacher, teacher, options_.temperature);
  }

 private:
  DistillationOptions options_;
  SoftLoss soft_;
  std::unique_ptr<training::Objective> hard_;
  LogitCache cache_;
};

}  // namespace

Result<std::unique_ptr<training::Objective>> make_objective(const DistillationOptions& options, Teacher teacher,
                                                            const data::Dataset& dataset, const training::TrainingOptions& training,
                                                            std::uint64_t seed) {
  auto soft = TRY(find_soft_loss(options, int(dataset.classes.size())));
  return std::make_unique<DistillationObjective>(options, std::move(soft), training::make_supervised(training, dataset),
                                                 LogitCache(std::move(teacher), dataset, training.augment, seed));
}

Result<training::Trained> derive(models::FlatModel& student, Teacher teacher, const data::Dataset& dataset,
                                 training::TrainingOptions training, const DistillationOptions& options, std::uint64_t seed,
                                 const training::EpochCallback& after_epoch) {
  if (training.views == 0) training.views = kDefaultViews;
  training::use_threads(training.threads);
  const auto objective = TRY(make_objective(options, std::move(teacher), dataset, training, seed));
  return training::train(student, dataset, training, *objective, seed, {}, after_epoch);
}

}  // namespace preceptor::distill
