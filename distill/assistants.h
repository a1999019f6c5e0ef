#pragma once
#include "distill/distill.h"

namespace preceptor::distill {

/// A network between teacher and student, trained on the same images. Its `training` and `distillation` are as a student's.
struct AssistantOptions {
  models::ModelOptions model{"shufflenet_v2", 1, "small"};
  training::TrainingOptions training;
  DistillationOptions distillation;
  template <class V>
  void visit(V& v) {
    v("model", model);
    v("training", training);
    v("distillation", distillation);
  }
};

/// What they would be refused for, before a teacher is trained. Error: kInvalid, with "assistants[i]: " in front.
Result<void> check(std::span<const AssistantOptions> assistants, const data::Dataset& dataset);

/// Called after each epoch of assistant `which`, counted from 0.
using AssistantCallback = std::function<void(std::size_t which, int epoch, double loss)>;

/// A chain of teaching assistants (Mirzadeh 2020, arXiv:1902.03393): the first is derived from `teacher`, each next from the
/// one before it. Returns who is to teach the student: the last of them; `teacher` itself when there are none.
/// A step of the chain draws from streams of its own, "assistant" i. Errors as of `check` and training::train.
Result<Teacher> through_assistants(Teacher teacher, std::span<const AssistantOptions> assistants, const data::Dataset& dataset,
                                   std::uint64_t seed, const AssistantCallback& after_epoch = {});

}  // namespace preceptor::distill
