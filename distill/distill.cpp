#include "distill/distill.h"

#include <torch/torch.h>

namespace preceptor::distill {
namespace {

constexpr int kDefaultViews = 4;

class DistillationObjective : public training::Objective {
 public:
  DistillationObjective(const DistillationOptions& options, SoftLoss soft, std::unique_ptr<FeatureLoss> features,
                        std::unique_ptr<training::Objective> hard, Teacher teacher, LogitCache cache)
      : options_(options), soft_(std::move(soft)), features_(std::move(features)), hard_(std::move(hard)),
        teacher_(std::move(teacher)), cache_(std::move(cache)) {}

  at::Tensor loss(const training::Batch& batch, const at::Tensor& logits) override {
    // A network with a head for each (DeiT, arXiv:2012.12877) hears the labels with one and the teacher with the other.
    const bool two = training::two_headed(logits);
    const auto to_labels = two ? logits.select(1, 0) : logits, to_teacher = two ? logits.select(1, 1) : logits;
    const auto hard = options_.hard_weight * hard_->loss(batch, to_labels);
    if (options_.soft_weight == 0) return hard;  // the teacher need not be asked
    const auto device = logits.device();
    return hard + options_.soft_weight * soft_(to_teacher, cache_.rows(batch).to(device), batch.labels.to(device), options_);
  }

  at::Tensor loss_with(const training::Batch& batch, const at::Tensor& logits, const models::Features& student) override {
    const auto sum = loss(batch, logits);
    if (!features_) return sum;
    auto teacher = models::with_features([&] { return teacher_.logits(batch.images); }).second;
    for (auto& map : teacher.maps) map = map.to(logits.device());
    if (teacher.pooled.defined()) teacher.pooled = teacher.pooled.to(logits.device());
    return sum + options_.feature_weight * features_->loss(student, teacher);
  }

  void step(double learning_rate) override {
    if (features_) features_->step(learning_rate);
  }
  bool by_image() const override { return !features_ && hard_->by_image(); }  // feature losses compare images, or learn

 private:
  DistillationOptions options_;
  SoftLoss soft_;
  std::unique_ptr<FeatureLoss> features_;
  std::unique_ptr<training::Objective> hard_;
  Teacher teacher_;
  LogitCache cache_;
};

}  // namespace

Result<void> check(const DistillationOptions& options, int classes, bool in_rounds) {
  TRY(find_soft_loss(options, classes));
  if (options.features == "none") return {};
  const auto* entry = TRY(feature_losses().find(options.features));
  if (in_rounds && entry->learns)
    return fail(Code::kInvalid, "feature loss '{}' learns beside the student, and would begin anew every round; in the sites' loss take at or rkd",
                options.features);
  return {};
}

Result<std::unique_ptr<training::Objective>> make_objective(const DistillationOptions& options, Teacher teacher,
                                                            const data::Dataset& dataset, const training::TrainingOptions& training,
                                                            std::uint64_t seed) {
  const int classes = int(dataset.classes.size());
  TRY(check(options, classes));
  auto soft = TRY(find_soft_loss(options, classes));
  std::unique_ptr<FeatureLoss> features;
  if (options.features != "none") {
    if (!teacher.model())
      return fail(Code::kInvalid, "feature loss '{}': a TorchScript teacher shows no features; take a teacher of the zoo (.safetensors) or features: none",
                  options.features);
    features = TRY(feature_losses().find(options.features))->make(training, seed);
  }
  return std::make_unique<DistillationObjective>(options, std::move(soft), std::move(features),
                                                 training::make_supervised(training, dataset), teacher,
                                                 LogitCache(teacher, dataset, training.augment, seed));
}

training::TrainingOptions with_views(training::TrainingOptions training) {
  if (training.views == 0) training.views = kDefaultViews;
  return training;
}

Result<training::Trained> derive(models::FlatModel& student, Teacher teacher, const data::Dataset& dataset,
                                 training::TrainingOptions training, const DistillationOptions& options, std::uint64_t seed,
                                 const training::EpochCallback& after_epoch) {
  training = with_views(std::move(training));
  const auto objective = TRY(make_objective(options, std::move(teacher), dataset, training, seed));
  return training::train(student, dataset, training, *objective, seed, {}, after_epoch);
}

}  // namespace preceptor::distill
