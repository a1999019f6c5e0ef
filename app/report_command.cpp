#include <filesystem>
#include <iostream>

#include "app/command.h"
#include "app/report.h"
#include "app/report_run.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string run;
  bool json = false;
};

Result<void> rebuild(const Arguments& arguments) {
  const std::filesystem::path run = arguments.run;
  const auto summary = TRY(read_summary(run));
  TRY(write_report(run));
  if (arguments.json)
    std::cout << summary.dump(2) << "\n";
  else
    std::cout << summary_text(summary) << "report: " << (run / "report.html").string() << "\n";
  return {};
}

const RegisterCommand kReport{
    "report",
    {"Rebuild report.html of a run and print its summary", "preceptor report runs/demo",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<Arguments>();
       app.add_option("run", arguments->run, "run directory, with summary.json in it")->required();
       app.add_flag("--json", arguments->json, "print summary.json instead of a table");
       return [arguments] {
         const auto done = rebuild(*arguments);
         return done ? kDone : report(done.error());
       };
     }}};

}  // namespace
}  // namespace preceptor::app
