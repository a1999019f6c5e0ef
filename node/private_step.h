#pragma once
#include "node/guard.h"
#include "training/training.h"

namespace preceptor::node {

/// A round of record-distributed: one step of plain gradient descent, -rate · Σ clipped gradients / options.batch over a
/// Poisson sample of the images. No noise yet: its share goes to the words. One image moves the model by at most
/// clip · learning_rate / batch. Error: kInvalid, as of training::PrivateStep.
Result<void> private_step(models::FlatModel& student, training::Objective& objective, const PrivacyGuard& guard, const data::Dataset& train,
                          std::uint64_t seed, const training::Stretch& stretch);

}  // namespace preceptor::node
