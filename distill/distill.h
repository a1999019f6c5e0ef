#pragma once
#include "distill/loss.h"
#include "distill/teacher.h"

namespace preceptor::distill {

/// hard_weight · the data's own loss + soft_weight · soft loss against a teacher's cached logits on the same views.
/// `dataset` must outlive it; seed and augmentation must be those of the training call.
Result<std::unique_ptr<training::Objective>> make_objective(const DistillationOptions& options, Teacher teacher,
                                                            const data::Dataset& dataset, const training::TrainingOptions& training,
                                                            std::uint64_t seed);

/// Derives a student: trains it on `dataset` under the teacher's eye. `training.views` augmentations of each
/// image are shown to the teacher once (0 would mean new ones every epoch; then four are used).
Result<training::Trained> derive(models::FlatModel& student, Teacher teacher, const data::Dataset& dataset,
                                 training::TrainingOptions training, const DistillationOptions& options, std::uint64_t seed,
                                 const training::EpochCallback& after_epoch = {});

}  // namespace preceptor::distill
