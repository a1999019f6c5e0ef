#include "coordinator/derive.h"

#include "common/log.h"
#include "common/progress.h"
#include "models/weights.h"
#include "training/outcome.h"

namespace preceptor::coordinator {
namespace {

training::EpochCallback report(Progress& progress, int epochs) {
  return [&progress, epochs](int epoch, double loss) {
    progress.update(double(epoch + 1) / epochs, fmt::format("epoch {}/{}, loss {:.3f}", epoch + 1, epochs, loss));
    return true;
  };
}

/// Whether the path names a .safetensors file that preceptor did not write: weights to begin with, not a model.
Result<bool> is_foreign(const std::string& path) {
  if (std::filesystem::path(path).extension() != ".safetensors") return false;
  return !TRY(models::is_model_file(path));
}

/// Initial values from such a file; says what it took from it.
Result<models::LoadedWeights> start_from(models::FlatModel& model, const std::string& path, const char* key) {
  auto loaded = models::load_weights(model, path);
  if (!loaded) return in(key, loaded.error());
  spdlog::info("{}: {} of {} pieces from {} ({})", key, loaded->pieces, model.space().pieces().size(), path, loaded->source);
  for (const auto& [piece, reason] : loaded->left_out) spdlog::info("{}: {} begins with random values: {}", key, piece, reason);
  if (!loaded->unused.empty())
    spdlog::warn("{}: {} has {} tensors that {} has no place for, {} the first; is it this network's?", key, path,
                 loaded->unused.size(), model.spec().model.name, loaded->unused.front());
  return loaded;
}

/// From random values, or from a file of others' weights; those need no training if their head fits.
Result<std::shared_ptr<models::FlatModel>> train_teacher(const TeacherOptions& options, const data::Splits& data, std::uint64_t seed) {
  const auto spec = TRY(training::spec_for(options.model, data.test));
  auto model = std::make_shared<models::FlatModel>(TRY(models::FlatModel::create(spec, options.training.device)));
  model->initialise(RandomStream(seed, "teacher/init"));
  if (!options.path.empty()) {
    const auto loaded = TRY(start_from(*model, options.path, "teacher.path"));
    if (options.training.epochs == 0 && !loaded.left_out.empty())
      return fail(Code::kInvalid, "teacher.path: {} has no head for these classes ({}: {}); train one with teacher.training.epochs",
                  options.path, loaded.left_out.front().piece, loaded.left_out.front().reason);
    if (options.training.epochs == 0) return model;
  }
  const auto objective = training::make_supervised(options.training, data.train);
  Progress progress("teacher");
  const auto trained = training::train(*model, data.train, options.training, *objective, RandomStream(seed, "teacher").bits64(), {},
                                       report(progress, options.training.epochs));
  if (!trained) return in("teacher (is data.partition.consortium large enough?)", trained.error());
  return model;
}

Result<models::FlatModel> start_student(const StudentOptions& options, const data::Dataset& images, std::uint64_t seed) {
  const auto spec = TRY(training::spec_for(options.model, images));
  const bool foreign = TRY(is_foreign(options.path));
  if (options.path.empty() || foreign) {
    auto model = TRY(models::FlatModel::create(spec, options.training.device));
    model.initialise(RandomStream(seed, "student/init"));
    if (foreign) TRY(start_from(model, options.path, "student.path"));
    return model;
  }
  auto loaded = TRY(models::load_model(options.path, options.training.device));
  auto wanted = spec, has = loaded.model.spec();
  wanted.structure = has.structure;  // what compression made of the network is the file's to say
  if (write_options(has) != write_options(wanted))
    return fail(Code::kInvalid, "{}: is another network than student.model asks for:\n{}", options.path, write_options(has));
  return std::move(loaded.model);
}

/// Whoever stands at the end of the chain of assistants.
Result<distill::Teacher> next_to_student(const distill::Teacher& teacher, const StudentOptions& student, const data::Dataset& images,
                                         std::uint64_t seed) {
  Progress progress("distilling the assistants");
  const auto& assistants = student.assistants;
  auto last = distill::through_assistants(teacher, assistants, images, seed, [&](std::size_t which, int epoch, double loss) {
    const int epochs = assistants[which].training.epochs;
    progress.update((double(which) + double(epoch + 1) / epochs) / double(assistants.size()),
                    fmt::format("assistant {}/{}, epoch {}/{}, loss {:.3f}", which + 1, assistants.size(), epoch + 1, epochs, loss));
  });
  if (!last) return in("student", last.error());
  return last;
}

/// On the consortium's images: plainly, from a teacher, beside peers, or both.
Result<training::Trained> train_student(models::FlatModel& model, const StudentOptions& options, const std::optional<distill::Teacher>& teacher,
                                        std::vector<models::FlatModel>& peers, const data::Dataset& images, std::uint64_t seed) {
  const auto training = teacher ? distill::with_views(options.training) : options.training;
  auto objective = teacher ? TRY(distill::make_objective(options.distillation, *teacher, images, training, seed))
                           : training::make_supervised(training, images);
  if (!peers.empty()) objective = distill::make_mutual(options.mutual, std::move(objective), peers, images, training);
  Progress progress(teacher ? "distilling the student" : "training the student");
  return training::train(model, images, training, *objective, seed, {}, report(progress, training.epochs));
}

/// So that a mistake in the student's options does not cost the teacher's training.
Result<void> check(const StudentOptions& options, bool taught, const data::Dataset& images) {
  TRY(distill::check(options.assistants, images));
  if (!options.assistants.empty() && !taught)
    return fail(Code::kInvalid, "assistants need a teacher; set teacher.path or teacher.training.epochs");
  if (taught && options.training.epochs > 0) TRY(distill::check(options.distillation, int(images.classes.size())));
  return {};
}

}  // namespace

training::Metrics evaluate(models::FlatModel& model, const data::Dataset& set, std::uint64_t seed) {
  if (set.size() == 0) return {};
  return training::measure(training::outcome_of(model, set), seed);
}

Result<Derived> derive(const TeacherOptions& teacher, const StudentOptions& student, const data::Splits& consortium, std::uint64_t seed) {
  const bool foreign = TRY(is_foreign(teacher.path));
  const bool taught = !teacher.path.empty() || teacher.training.epochs > 0;
  if (const auto checked = check(student, taught, consortium.test); !checked) return in("student", checked.error());
  auto model = TRY(start_student(student, consortium.test, seed));
  auto peers = distill::make_peers(student.mutual, consortium.test, student.training.device, RandomStream(seed, "peers").bits64());
  if (!peers) return in("student", peers.error());
  std::optional<distill::Teacher> guide;
  std::optional<training::Metrics> teacher_metrics;
  const models::TaskOptions task{int(consortium.test.classes.size()), consortium.test.channels, consortium.test.height};
  if (!teacher.path.empty() && !foreign) {
    guide = TRY(distill::Teacher::load(teacher.path, task, teacher.training.device, consortium.test.segmentation));
  } else if (taught) {
    guide = distill::Teacher::wrap(TRY(train_teacher(teacher, consortium, seed)));
  }
  if (guide && consortium.test.size() > 0)
    teacher_metrics = training::measure(training::outcome_of(guide->network(), consortium.test), seed);
  if (student.training.epochs > 0) {
    const auto tutor = guide ? std::optional(TRY(next_to_student(*guide, student, consortium.train, RandomStream(seed, "assistants").bits64())))
                             : std::nullopt;
    const auto trained = train_student(model, student, tutor, *peers, consortium.train, RandomStream(seed, "student").bits64());
    if (!trained) return in("student (is data.partition.consortium large enough?)", trained.error());
  }
  if (student.lora.rank > 0) {
    auto added = compression::add_lora(model, student.lora, seed);
    if (!added) return in("student.lora", added.error());
    model = std::move(*added);
  }
  auto metrics = evaluate(model, consortium.test, seed);
  const auto parameters = guide && guide->model() ? guide->model()->space().trainable() : 0;
  return Derived{std::move(guide), teacher_metrics, parameters, std::move(model), metrics, teacher.path.empty() || foreign};
}

}  // namespace preceptor::coordinator
