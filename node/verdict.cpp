#include "node/verdict.h"

#include "training/outcome.h"

namespace preceptor::node {
namespace {

constexpr double kSignificance = 0.05;
constexpr double kPersonaliseFrom = 0.75;  ///< of the schedule: fine-tuning uses its last, small rates

/// One model on the two splits that the verdict looks at.
struct Outcomes {
  training::Outcome validation, test;
};

Outcomes outcomes_of(models::FlatModel& model, const data::Splits& data) {
  return {training::outcome_of(model, data.validation), training::outcome_of(model, data.test)};
}

transport::Estimate convert(const std::optional<training::Estimate>& estimate) {
  if (!estimate) return {};
  return {true, estimate->value, estimate->low, estimate->high};
}

Result<std::vector<float>> fine_tune(Workbench& bench, const SiteState& site, std::span<const float> from, int epochs,
                                     training::Stretch stretch, std::uint64_t seed) {
  auto& student = bench.student();
  auto options = bench.plan().training;
  options.epochs = epochs;
  student.load(from);
  const auto objective = training::make_supervised(options, site.data->train);
  TRY(training::train(student, site.data->train, options, *objective, seed, stretch));
  return student.store();
}

}  // namespace

Result<Verdict> judge(Workbench& bench, const SiteState& site, const Bytes& global) {
  const auto& plan = bench.plan();
  const auto& data = *site.data;
  auto& student = bench.student();
  const auto received = floats_of(global);
  if (received.size() != student.space().size()) return fail(Code::kRefused, "the final model is not a {}", plan.student.model.name);
  const auto seed = RandomStream(plan.seed, "site/" + site.name).bits64();
  training::use_threads(plan.training.threads);

  Verdict verdict;
  const auto initial = site.initial ? floats_of(*site.initial) : received;
  verdict.local = TRY(fine_tune(bench, site, initial, plan.rounds * plan.training.epochs, {}, seed));
  const auto local = outcomes_of(student, data);
  student.load(received);
  verdict.global.assign(received.begin(), received.end());
  const auto shared = outcomes_of(student, data);
  verdict.personalised = TRY(fine_tune(bench, site, received, plan.personalise_epochs, {kPersonaliseFrom, 1, 0}, seed + 1));
  const auto personal = outcomes_of(student, data);

  auto& report = verdict.report;
  report.train = data.train.size();
  report.validation = data.validation.size();
  report.test = data.test.size();
  const auto fill = [&](const Outcomes& outcomes, transport::Estimate& auc, transport::Estimate& accuracy, transport::Estimate& dice) {
    const auto metrics = training::measure(outcomes.test, seed);
    auc = convert(metrics.auc);
    accuracy = convert(metrics.accuracy);
    dice = convert(metrics.dice);
  };
  fill(local, report.local_auc, report.local_accuracy, report.local_dice);
  fill(shared, report.global_auc, report.global_accuracy, report.global_dice);
  fill(personal, report.personalised_auc, report.personalised_accuracy, report.personalised_dice);

  const bool personalise = training::headline(personal.validation) > training::headline(shared.validation);
  report.chosen = personalise ? "personalised" : "global";
  report.verdict = "no difference";
  const auto test = training::compare(local.test, (personalise ? personal : shared).test, seed);
  if (!test) return verdict;  // no test image: nothing can be told
  report.metric = test->metric;
  report.difference = test->difference.value;
  report.difference_low = test->difference.low;
  report.difference_high = test->difference.high;
  report.p_value = test->p_value;
  if (test->p_value < kSignificance) report.verdict = test->difference.value > 0 ? "federation helped" : "federation harmed";
  return verdict;
}

}  // namespace preceptor::node
