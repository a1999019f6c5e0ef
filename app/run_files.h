#pragma once
#include <CLI/CLI.hpp>
#include <atomic>
#include <nlohmann/json.hpp>

#include "common/options.h"

namespace preceptor::app {

/// What every command that runs a configuration takes.
struct RunArguments {
  std::string config;
  std::vector<std::string> overrides;
  std::string out = "runs/latest";
  bool json = false;

  void add_to(CLI::App& app, bool config_is_flag, bool with_out);
  /// The file with its overrides, as options.
  template <class Options>
  Result<Options> read() const {
    const auto node = TRY(load_yaml(config, overrides));
    return read_options<Options>(node, config);
  }
};

/// Writes report.html and prints the summary.
Result<void> present(const RunArguments& arguments, const nlohmann::ordered_json& summary);

/// Set by SIGINT and SIGTERM once this was called.
const std::atomic<bool>& interruption();

}  // namespace preceptor::app
