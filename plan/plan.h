#pragma once
#include "compression/update/downlink.h"
#include "distill/options.h"
#include "models/options.h"
#include "plan/privacy.h"
#include "training/options.h"

namespace preceptor {

/// A distillation term inside the node's own loss.
struct LocalDistillation {
  std::string from = "none";  ///< none; global: the student as received this round; teacher: the plan's teacher
  distill::DistillationOptions loss{"soft-target", 2, 1, 0.5};
  template <class V>
  void visit(V& v) {
    v("from", from, OneOf{"none", "global", "teacher"});
    v("loss", loss);
  }
};

/// A teacher that nodes may fetch; each node's own budget decides whether it does.
struct TeacherReference {
  std::string sha256;  ///< of the flat parameters; empty: no teacher travels
  std::uint64_t bytes = 0;
  models::ModelSpec spec;
  template <class V>
  void visit(V& v) {
    v("sha256", sha256);
    v("bytes", bytes, Range{0, 1e12});
    v("spec", spec);
  }
};

/// What a node is asked to do, whole: data from closed registries, no code. The coordinator writes it, the node
/// reads it with every key and range checked; both compare the architecture by hash before a float is exchanged.
struct Plan {
  std::string job = "preceptor";
  std::uint64_t seed = 1;
  int rounds = 10;
  models::ModelSpec student;
  std::string initial;  ///< SHA-256, hexadecimal, of the model that round 1 begins with: float32, little-endian, flat
  training::TrainingOptions training;  ///< epochs: of one round
  LocalDistillation distillation;
  compression::UpdateOptions update;
  PrivacyOptions privacy;
  TeacherReference teacher;
  int personalise_epochs = 3;  ///< of local fine-tuning after the last round
  compression::DownlinkOptions downlink{};
  template <class V>
  void visit(V& v) {
    v("job", job);
    v("seed", seed, Range{0, 9e15});
    v("rounds", rounds, Range{1, 100000});
    v("student", student);
    v("initial", initial);
    v("training", training);
    v("distillation", distillation);
    v("update", update);
    v("privacy", privacy);
    v("teacher", teacher);
    v("personalise_epochs", personalise_epochs, Range{0, 1000});
    v("downlink", downlink);
  }
};

}  // namespace preceptor
