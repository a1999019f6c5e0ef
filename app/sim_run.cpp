#include <filesystem>
#include <iostream>

#include "app/command.h"
#include "app/report.h"
#include "common/cpu.h"
#include "common/log.h"
#include "sim/simulation.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string config, out = "runs/latest";
  std::vector<std::string> overrides;
  bool json = false;
};

Result<void> simulate(const Arguments& arguments) {
  const auto node = TRY(load_yaml(arguments.config, arguments.overrides));
  auto options = TRY(read_options<sim::SimulationOptions>(node, arguments.config));
  spdlog::info("{}", cpu_summary());
  const auto summary = TRY(sim::simulate(options, write_options(options), arguments.out));
  TRY(write_report(arguments.out));
  if (arguments.json)
    std::cout << summary.dump(2) << "\n";
  else
    std::cout << summary_text(summary) << "report: " << (std::filesystem::path(arguments.out) / "report.html").string() << "\n";
  return {};
}

const RegisterCommand kSimRun{
    "sim run",
    {"Run coordinator and sites on this machine", "preceptor sim run configs/sim/demo.yaml --out runs/demo --set seed=2",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<Arguments>();
       app.add_option("config", arguments->config, "YAML file")->required();
       app.add_option("--out", arguments->out, "run directory")->capture_default_str();
       app.add_option("--set", arguments->overrides, "override one key: training.epochs=2; may be repeated")->allow_extra_args(false);
       app.add_flag("--json", arguments->json, "print summary.json instead of a table");
       return [arguments] {
         const auto done = simulate(*arguments);
         return done ? kDone : report(done.error());
       };
     }}};

}  // namespace
}  // namespace preceptor::app
