#pragma once
#include "distill/feature_loss.h"
#include "distill/loss.h"
#include "distill/teacher.h"

namespace preceptor::distill {

/// Whether both losses are known and say something for so many classes; `in_rounds`: of a term in a site's loss, which is
/// made anew every round. Error: kInvalid, with the way out.
Result<void> check(const DistillationOptions& options, int classes, bool in_rounds = false);

/// hard_weight · the data's own loss + soft_weight · soft loss against a teacher's cached logits on the same views
/// + feature_weight · feature loss. A teacher's features are large, so they are not kept: it then looks at every batch.
/// `dataset` must outlive it; seed and augmentation must be those of the training call.
/// Error: kInvalid as of `check`, and for a feature loss against TorchScript, which shows no features.
Result<std::unique_ptr<training::Objective>> make_objective(const DistillationOptions& options, Teacher teacher,
                                                            const data::Dataset& dataset, const training::TrainingOptions& training,
                                                            std::uint64_t seed);

/// The options with which a student is trained under a teacher: views 0 would mean new augmentations every epoch, each of
/// which the teacher would have to see; then four.
training::TrainingOptions with_views(training::TrainingOptions training);

/// Derives a student: trains it on `dataset` under the teacher's eye, with_views(training).
Result<training::Trained> derive(models::FlatModel& student, Teacher teacher, const data::Dataset& dataset,
                                 training::TrainingOptions training, const DistillationOptions& options, std::uint64_t seed,
                                 const training::EpochCallback& after_epoch = {});

}  // namespace preceptor::distill
