#include "app/command.h"
#include "app/run_files.h"
#include "common/cpu.h"
#include "common/log.h"
#include "sim/simulation.h"

namespace preceptor::app {
namespace {

Result<void> simulate(const RunArguments& arguments) {
  auto options = TRY(arguments.read<sim::SimulationOptions>());
  spdlog::info("{}", cpu_summary());
  return present(arguments, TRY(sim::simulate(options, write_options(options), arguments.out)));
}

const RegisterCommand kSimRun{
    "sim run",
    {"Run coordinator and sites on this machine", "preceptor sim run configs/sim/demo.yaml --out runs/demo --set seed=2",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, false, true);
       return [arguments] { return finish(simulate(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
