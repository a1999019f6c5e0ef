#include "node/verdict.h"

#include "training/metrics.h"

namespace preceptor::node {
namespace {

constexpr double kSignificance = 0.05;
constexpr double kPersonaliseFrom = 0.75;  ///< of the schedule: fine-tuning uses its last, small rates

/// Softmax outputs of one model on the two splits that the verdict looks at.
struct Outputs {
  std::vector<float> validation, test;
};

Outputs outputs_of(models::FlatModel& model, const data::Splits& data) {
  return {training::predict(model, data.validation), training::predict(model, data.test)};
}

training::Predictions predictions(const std::vector<float>& probabilities, const data::Dataset& set) {
  return {probabilities, set.labels, set.classes.size()};
}

transport::Estimate convert(const std::optional<training::Estimate>& estimate) {
  if (!estimate) return {};
  return {true, estimate->value, estimate->low, estimate->high};
}

double validation_score(const std::vector<float>& probabilities, const data::Dataset& set) {
  const auto p = predictions(probabilities, set);
  return training::auc(p).value_or(training::accuracy(p).value_or(0));
}

Result<std::vector<float>> fine_tune(Workbench& bench, const SiteState& site, std::span<const float> from, int epochs,
                                     training::Stretch stretch, std::uint64_t seed) {
  auto& student = bench.student();
  auto options = bench.plan().training;
  options.epochs = epochs;
  student.load(from);
  const auto objective = training::make_cross_entropy(options, site.data->train);
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
  const auto local = outputs_of(student, data);
  student.load(received);
  verdict.global.assign(received.begin(), received.end());
  const auto shared = outputs_of(student, data);
  verdict.personalised = TRY(fine_tune(bench, site, received, plan.personalise_epochs, {kPersonaliseFrom, 1, 0}, seed + 1));
  const auto personal = outputs_of(student, data);

  auto& report = verdict.report;
  report.train = data.train.size();
  report.validation = data.validation.size();
  report.test = data.test.size();
  const auto fill = [&](const Outputs& outputs, transport::Estimate& auc, transport::Estimate& accuracy) {
    const auto metrics = training::measure(predictions(outputs.test, data.test), seed);
    auc = convert(metrics.auc);
    accuracy = convert(metrics.accuracy);
  };
  fill(local, report.local_auc, report.local_accuracy);
  fill(shared, report.global_auc, report.global_accuracy);
  fill(personal, report.personalised_auc, report.personalised_accuracy);

  const bool personalise = validation_score(personal.validation, data.validation) > validation_score(shared.validation, data.validation);
  report.chosen = personalise ? "personalised" : "global";
  report.verdict = "no difference";
  const auto test = training::compare(predictions(local.test, data.test), predictions((personalise ? personal : shared).test, data.test), seed);
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
