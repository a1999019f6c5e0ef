#include "app/command.h"
#include "app/run_files.h"
#include "common/cpu.h"
#include "common/log.h"
#include "coordinator/server.h"

namespace preceptor::app {
namespace {

Result<void> serve(const RunArguments& arguments) {
  auto options = TRY(arguments.read<coordinator::ServerOptions>());
  spdlog::info("{}", cpu_summary());
  return present(arguments, TRY(coordinator::serve(options, write_options(options), arguments.out, interruption())));
}

const RegisterCommand kServe{
    "coordinator serve",
    {"Derive the student, wait for the hospitals, run the rounds", "preceptor coordinator serve --config configs/net/coordinator.yaml --out runs/first",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, true, true);
       return [arguments] { return finish(serve(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
