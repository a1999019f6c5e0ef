#include "app/command.h"

#include <cstdio>

#include "common/cpu.h"
#include "common/log.h"
#include "common/version.h"

namespace preceptor::app {

namespace {

const std::map<std::string, std::string> kGroups{{"ca", "The consortium's certificates"},
                                                 {"coordinator", "The consortium's side of a job"},
                                                 {"deploy", "A model on its way into a clinic"},
                                                 {"node", "A hospital's side of a job"},
                                                 {"sim", "Both sides on one machine"}};

}  // namespace

Registry<Command>& commands() {
  static Registry<Command> registry("command");
  return registry;
}

int report(const Error& error) {
  std::fprintf(stderr, "preceptor: %s\n", error.message.c_str());
  const bool usage = error.code == Code::kInvalid || error.code == Code::kNotFound || error.code == Code::kCorrupt;
  return usage ? kBadUsage : kFailed;
}

int run(int argc, char** argv) {
  CLI::App app{"Preceptor: federated distillation for hospitals. Raw images never leave a site."};
  app.set_version_flag("--version", std::string("preceptor ") + kVersion);
  app.require_subcommand(1);
  std::function<int()> chosen;
  std::map<std::string, CLI::App*> groups;
  for (const auto& path : commands().names()) {
    const auto& command = **commands().find(path);
    CLI::App* parent = &app;
    auto name = path;
    if (const auto space = path.find(' '); space != std::string::npos) {
      const auto group = path.substr(0, space);
      name = path.substr(space + 1);
      auto& known = groups[group];
      if (!known) known = app.add_subcommand(group, kGroups.at(group))->require_subcommand(1);
      parent = known;
    }
    auto* sub = parent->add_subcommand(name, command.help);
    sub->footer("\nExample:\n  " + command.example);
    sub->callback([&chosen, action = command.set_up(*sub)] { chosen = action; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? kDone : kBadUsage;
  }
  set_up_log();
  spdlog::debug("{}", cpu_summary());
  try {
    return chosen();
  } catch (const std::exception& e) {
    const std::string text = e.what();
    std::fprintf(stderr, "preceptor: a fault of the program itself, please report it: %s\n", text.substr(0, text.find('\n')).c_str());
    return kFailed;
  }
}

}  // namespace preceptor::app
