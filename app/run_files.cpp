#include "app/run_files.h"

#include <csignal>
#include <filesystem>
#include <iostream>

#include "app/report.h"

namespace preceptor::app {
namespace {

std::atomic<bool> interrupted{false};

}  // namespace

void RunArguments::add_to(CLI::App& app, bool config_is_flag, bool with_out) {
  app.add_option(config_is_flag ? "--config" : "config", config, "YAML file")->required();
  app.add_option("--set", overrides, "override one key, as in --set training.epochs=2; may be repeated")->allow_extra_args(false);
  if (with_out) app.add_option("--out", out, "run directory")->capture_default_str();
  app.add_flag("--json", json, "print JSON instead of text");
}

Result<void> present(const RunArguments& arguments, const nlohmann::ordered_json& summary) {
  TRY(write_report(arguments.out));
  if (arguments.json)
    std::cout << summary.dump(2) << "\n";
  else
    std::cout << summary_text(summary) << "report: " << (std::filesystem::path(arguments.out) / "report.html").string() << "\n";
  return {};
}

const std::atomic<bool>& interruption() {
  const auto handler = [](int) { interrupted = true; };
  std::signal(SIGINT, handler);
  std::signal(SIGTERM, handler);
  return interrupted;
}

}  // namespace preceptor::app
