#include "coordinator/derive.h"

#include "common/log.h"
#include "common/progress.h"
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

Result<std::shared_ptr<models::FlatModel>> train_teacher(const TeacherOptions& options, const data::Splits& data, std::uint64_t seed) {
  const auto spec = TRY(spec_for(options.model, data.test));
  auto model = std::make_shared<models::FlatModel>(TRY(models::FlatModel::create(spec, options.training.device)));
  model->initialise(RandomStream(seed, "teacher/init"));
  const auto objective = training::make_supervised(options.training, data.train);
  Progress progress("teacher");
  const auto trained = training::train(*model, data.train, options.training, *objective, RandomStream(seed, "teacher").bits64(), {},
                                       report(progress, options.training.epochs));
  if (!trained) return in("teacher (is data.partition.consortium large enough?)", trained.error());
  return model;
}

Result<models::FlatModel> start_student(const StudentOptions& options, const data::Dataset& images, std::uint64_t seed) {
  const auto spec = TRY(spec_for(options.model, images));
  if (options.path.empty()) {
    auto model = TRY(models::FlatModel::create(spec, options.training.device));
    model.initialise(RandomStream(seed, "student/init"));
    return model;
  }
  auto loaded = TRY(models::load_model(options.path, options.training.device));
  auto wanted = spec;
  auto has = loaded.model.spec();
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
  std::optional<distill::Teacher> guide;
  std::optional<training::Metrics> teacher_metrics;
  const models::TaskOptions task{int(consortium.test.classes.size()), consortium.test.channels, consortium.test.height};
  if (!teacher.path.empty()) {
    guide = TRY(distill::Teacher::load(teacher.path, task, teacher.training.device, consortium.test.segmentation));
  } else if (teacher.training.epochs > 0) {
    guide = distill::Teacher::wrap(TRY(train_teacher(teacher, consortium, seed)));
  }
  if (guide && consortium.test.size() > 0)
    teacher_metrics = training::measure(training::outcome_of(guide->network(), consortium.test), seed);
  auto model = TRY(start_student(student, consortium.test, seed));
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
  auto metrics = evaluate(model, consortium.test, seed);
  const auto parameters = guide && guide->model() ? guide->model()->space().trainable() : 0;
  return Derived{std::move(guide), teacher_metrics, parameters, std::move(model), metrics};
}

}  // namespace preceptor::coordinator
