#include <filesystem>
#include <iostream>

#include "app/command.h"
#include "app/run_files.h"
#include "common/file.h"
#include "common/log.h"
#include "coordinator/derive.h"
#include "coordinator/job.h"
#include "sim/simulation.h"

namespace preceptor::app {
namespace {

/// The first half of a run alone: teacher and student on the consortium's images. Takes the same file.
Result<void> distill(const RunArguments& arguments) {
  auto options = TRY(arguments.read<sim::SimulationOptions>());
  const auto federation = TRY(data::load(options.data, options.seed));
  const auto derived = TRY(coordinator::derive(options.teacher, options.student, federation.consortium, options.seed));
  const std::filesystem::path out(arguments.out);
  std::error_code error;
  std::filesystem::create_directories(out, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", out.string(), error.message());
  TRY(write_file(out / "config.yaml", write_options(options)));
  TRY(models::save_model(out / "student.safetensors", derived.student, {{"job", options.job}}));
  if (derived.teacher && derived.teacher->model() && derived.teacher_is_new)
    TRY(models::save_model(out / "teacher.safetensors", *derived.teacher->model(), {{"job", options.job}}));
  nlohmann::ordered_json json{{"student", coordinator::to_json(derived.student_metrics)}};
  if (derived.teacher_metrics) json["teacher"] = coordinator::to_json(*derived.teacher_metrics);
  json["student"]["parameters"] = derived.student.space().trainable();
  TRY(write_file(out / "distill.json", json.dump(2) + "\n"));
  if (arguments.json) {
    std::cout << json.dump(2) << "\n";
    return {};
  }
  const auto line = [](const char* name, const training::Metrics& m) {
    if (m.dice && m.iou) std::cout << fmt::format("{:8} test Dice {:.4f}, IoU {:.4f}\n", name, m.dice->value, m.iou->value);
    if (m.auc && m.accuracy) std::cout << fmt::format("{:8} test AUC {:.4f}, accuracy {:.4f}\n", name, m.auc->value, m.accuracy->value);
  };
  if (derived.teacher_metrics) line("teacher", *derived.teacher_metrics);
  line("student", derived.student_metrics);
  std::cout << "models are in " << out.string() << "; start a federation with --set student.path=" << (out / "student.safetensors").string()
            << " --set student.training.epochs=0\n";
  return {};
}

const RegisterCommand kDistill{
    "distill",
    {"Train or load the teacher and derive the student, without federation",
     "preceptor distill configs/sim/demo.yaml --out runs/student --set student.distillation.temperature=3",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, false, true);
       return [arguments] { return finish(distill(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
