#include <iostream>
#include <nlohmann/json.hpp>
#include <set>

#include "app/command.h"
#include "privacy/differential_privacy/differential_privacy.h"
#include "privacy/differential_privacy/ledger.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;

struct Arguments {
  std::string state = "node-state";
  double delta = 0, epsilon = privacy::PrivacyLimits{}.epsilon_max;
  bool json = false;
};

Json describe(const privacy::LedgerState& ledger, const Arguments& arguments) {
  std::set<std::string> jobs;
  for (const auto& debit : ledger.debits) jobs.insert(debit.job);
  const double delta = arguments.delta > 0 ? arguments.delta : privacy::PrivacyLimits{}.delta(ledger.records);
  const auto spent = ledger.spent(delta);
  return {{"dataset", ledger.dataset},
          {"name", ledger.name},
          {"records", ledger.records},
          {"jobs", jobs.size()},
          {"rounds", ledger.debits.size()},
          {"epsilon_spent", spent.epsilon},
          {"epsilon_left", std::max(0.0, arguments.epsilon - spent.epsilon)},
          {"epsilon_max", arguments.epsilon},
          {"delta", delta},
          {"accountant", spent.accountant}};
}

Result<void> print(const Arguments& arguments) {
  Json all = Json::array();
  for (const auto& file : TRY(privacy::ledgers_in(std::filesystem::path(arguments.state) / "privacy"))) {
    const auto ledger = TRY(privacy::read_ledger(file));
    all.push_back(describe(ledger, arguments));
  }
  if (arguments.json) {
    std::cout << all.dump(2) << "\n";
    return {};
  }
  if (all.empty()) std::cout << "no data set in " << arguments.state << " has spent any privacy budget\n";
  for (const auto& one : all)
    std::cout << fmt::format("{} ({:.12}…, {} images): {} jobs, {} rounds; ε = {:.4f} spent, {:.4f} left of {:g} at δ = {:g} ({})\n",
                             one["name"].get<std::string>(), one["dataset"].get<std::string>(), one["records"].get<std::uint64_t>(),
                             one["jobs"].get<std::uint64_t>(), one["rounds"].get<std::uint64_t>(), one["epsilon_spent"].get<double>(),
                             one["epsilon_left"].get<double>(), one["epsilon_max"].get<double>(), one["delta"].get<double>(),
                             one["accountant"].get<std::string>());
  return {};
}

const RegisterCommand kNodeBudget{
    "node budget",
    {"Print what each data set of this hospital has spent of its privacy budget", "preceptor node budget --state node-state --json",
     [](CLI::App& app) -> std::function<int()> {
       auto arguments = std::make_shared<Arguments>();
       app.add_option("--state", arguments->state, "the node's state folder, `state` in its configuration")->capture_default_str();
       app.add_option("--epsilon-max", arguments->epsilon, "the budget: limits.privacy.epsilon_max of the configuration")->check(CLI::NonNegativeNumber)->capture_default_str();
       app.add_option("--delta", arguments->delta, "at which ε is told; 0: 1 / (10 · records), as the ledger is kept")->check(CLI::Range(0.0, 0.1))->capture_default_str();
       app.add_flag("--json", arguments->json, "for machines");
       return [arguments] { return finish(print(*arguments)); };
     }}};

}  // namespace
}  // namespace preceptor::app
