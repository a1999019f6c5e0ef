#include <iostream>

#include "app/command.h"
#include "app/run_files.h"
#include "common/cpu.h"
#include "common/file.h"
#include "common/log.h"
#include "coordinator/job.h"
#include "node/daemon.h"

namespace preceptor::app {
namespace {

Result<void> run_node(const RunArguments& arguments) {
  const auto options = TRY(arguments.read<node::DaemonOptions>());
  spdlog::info("{}", cpu_summary());
  const auto verdict = coordinator::to_json(TRY(node::run_daemon(options, interruption())));
  TRY(write_file(std::filesystem::path(options.state) / "verdict.json", verdict.dump(2) + "\n"));
  if (arguments.json)
    std::cout << verdict.dump(2) << "\n";
  else
    std::cout << fmt::format("{} (p = {:.3f}); models and verdict.json are in {}\n", verdict["verdict"].get<std::string>(),
                             verdict["p_value"].get<double>(), options.state);
  return {};
}

const RegisterCommand kNodeRun{
    "node run",
    {"Serve this hospital's images to one job; the images stay here", "preceptor node run --config configs/net/node.yaml",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, true, false);
       return [arguments] { return finish(run_node(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
