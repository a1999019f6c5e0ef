#include "coordinator/derive.h"

#include "common/log.h"
#include "common/progress.h"
#include "models/weights.h"
#include "training/outcome.h"

namespace preceptor::coordinator {
namespace {

Result<models::ModelSpec> spec_for(const models::ModelOptions& model, const data::Dataset& images) {
  TRY(training::check_task(model, images));
  return models::ModelSpec{model, {int(images.classes.size()), images.channels, images.height}};
}

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
  const auto spec = TRY(spec_for(options.model, data.test));
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
  const auto spec = TRY(spec_for(options.model, images));
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

}  // namespace

training::Metrics evaluate(models::FlatModel& model, const data::Dataset& set, std::uint64_t seed) {
  if (set.size() == 0) return {};
  return training::measure(training::outcome_of(model, set), seed);
}

Result<Derived> derive(const TeacherOptions& teacher, const StudentOptions& student, const data::Splits& consortium, std::uint64_t seed) {
  // First, so that a mistake in its options does not cost the teacher's training.
  auto model = TRY(start_student(student, consortium.test, seed));
  std::optional<distill::Teacher> guide;
  std::optional<training::Metrics> teacher_metrics;
  const models::TaskOptions task{int(consortium.test.classes.size()), consortium.test.channels, consortium.test.height};
  const bool foreign = TRY(is_foreign(teacher.path));
  if (!teacher.path.empty() && !foreign) {
    guide = TRY(distill::Teacher::load(teacher.path, task, teacher.training.device, consortium.test.segmentation));
  } else if (foreign || teacher.training.epochs > 0) {
    guide = distill::Teacher::wrap(TRY(train_teacher(teacher, consortium, seed)));
  }
  if (guide && consortium.test.size() > 0)
    teacher_metrics = training::measure(training::outcome_of(guide->network(), consortium.test), seed);
  if (student.training.epochs > 0) {
    Progress progress(guide ? "distilling the student" : "training the student");
    const auto callback = report(progress, student.training.epochs);
    const auto stream = RandomStream(seed, "student").bits64();
    const auto trained = [&]() -> Result<training::Trained> {
      if (guide) return distill::derive(model, *guide, consortium.train, student.training, student.distillation, stream, callback);
      const auto objective = training::make_supervised(student.training, consortium.train);
      return training::train(model, consortium.train, student.training, *objective, stream, {}, callback);
    }();
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
