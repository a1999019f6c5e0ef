#include <iostream>

#include "app/command.h"
#include "app/run_files.h"
#include "common/cpu.h"
#include "common/log.h"
#include "deploy/recipe.h"

namespace preceptor::app {
namespace {

Result<void> compress(const RunArguments& arguments, bool measure_again) {
  const auto options = TRY(arguments.read<deploy::RecipeOptions>());
  spdlog::info("{}", cpu_summary());
  const auto result = TRY(deploy::run_recipe(options, arguments.out, measure_again));
  std::cout << (arguments.json ? result.dump(2) + "\n" : deploy::table_of(result) + "\nmodels and figures are in " + arguments.out + "\n");
  return {};
}

const RegisterCommand kCompress{
    "compress",
    {"Make a teacher small by a recipe of steps, each measured; goes on where it was stopped",
     "preceptor compress configs/compress/demo.yaml --out runs/compress",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<RunArguments>();
       arguments->add_to(app, false, true);
       auto measure_again = std::make_shared<bool>(false);
       app.add_flag("--measure-again", *measure_again, "measure models of an earlier call anew, on this box as it is now");
       return [arguments, measure_again] { return finish(compress(*arguments, *measure_again)); };
     }}};

}  // namespace
}  // namespace preceptor::app
