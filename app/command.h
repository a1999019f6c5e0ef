#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "common/registry.h"

namespace preceptor::app {

/// Exit codes of every subcommand.
inline constexpr int kDone = 0, kFailed = 1, kBadUsage = 2;

/// One subcommand: adds its options to the parser and returns what runs when it was chosen.
/// Registered under its path, "sim run"; the part before the space is a group.
struct Command {
  std::string help;     ///< one line
  std::string example;  ///< shown by --help
  std::function<std::function<int()>(CLI::App&)> set_up;
};
Registry<Command>& commands();
struct RegisterCommand {
  RegisterCommand(const char* path, Command command) { commands().add(path, std::move(command)); }
};

/// Prints the error to standard error, a line each; 2 for what the user can mend in the call, else 1.
int report(const Error& error);
/// kDone, or report().
inline int finish(const Result<void>& outcome) { return outcome ? kDone : report(outcome.error()); }
/// Runs the program.
int run(int argc, char** argv);

}  // namespace preceptor::app
