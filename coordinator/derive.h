#pragma once
#include <filesystem>

#include "compression/model/lora.h"
#include "data/data.h"
#include "distill/assistants.h"
#include "distill/mutual.h"
#include "training/metrics.h"

namespace preceptor::coordinator {

/// Where the teacher comes from: a file, or training on the consortium's own images.
struct TeacherOptions {
  /// .safetensors that preceptor wrote; TorchScript (.pt, .ts: local, trusted); any other .safetensors: weights of
  /// torchvision or timm, from which `model` is trained; "": train one from random values.
  std::string path;
  models::ModelOptions model{"resnet18", 1, "small"};
  training::TrainingOptions training;  ///< epochs: 0 and no path: no teacher at all
  template <class V>
  void visit(V& v) {
    v("path", path);
    v("model", model);
    v("training", training);
  }
};

/// How the student begins: a file, distillation from the teacher, plain training, or random values.
struct StudentOptions {
  std::string path;  ///< .safetensors to start from: preceptor's (compressed or not), or weights of torchvision or timm for `model`
  models::ModelOptions model{"shufflenet_v2", 0.5, "small"};
  training::TrainingOptions training;  ///< on the consortium's images; epochs: 0: no training before federation
  distill::DistillationOptions distillation;
  std::vector<distill::AssistantOptions> assistants;  ///< between teacher and student, the first next to the teacher
  distill::MutualOptions mutual;                      ///< peers to learn beside, with a teacher or without
  compression::LoraOptions lora;  ///< added last: the federation then trains the additions and the head alone
  template <class V>
  void visit(V& v) {
    v("path", path);
    v("model", model);
    v("training", training);
    v("distillation", distillation);
    v("assistants", assistants);
    v("mutual", mutual);
    v("lora", lora);
  }
};

/// A teacher and a student derived from it, with what each scores on the consortium's test split.
struct Derived {
  std::optional<distill::Teacher> teacher;
  std::optional<training::Metrics> teacher_metrics;
  std::size_t teacher_parameters = 0;  ///< 0 for TorchScript
  models::FlatModel student;
  training::Metrics student_metrics;
  bool teacher_is_new = false;  ///< made here: no model file holds it yet
};

/// Trains or loads the teacher, then its assistants, then derives the student; shows progress. Errors name the option to change.
Result<Derived> derive(const TeacherOptions& teacher, const StudentOptions& student, const data::Splits& consortium, std::uint64_t seed);

/// Metrics of a model on a set.
training::Metrics evaluate(models::FlatModel& model, const data::Dataset& set, std::uint64_t seed);

}  // namespace preceptor::coordinator
