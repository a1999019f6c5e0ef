#include "node/local_round.h"

#include <cmath>

#include "node/private_step.h"
#include "training/outcome.h"

namespace preceptor::node {

std::span<const float> floats_of(const Bytes& blob) {
  return {reinterpret_cast<const float*>(blob.data()), blob.size() / sizeof(float)};
}

Result<std::unique_ptr<Workbench>> Workbench::create(const Plan& plan) {
  auto student = TRY(models::FlatModel::create(plan.student, plan.training.device));
  auto codec = TRY(compression::UpdateCodec::create(plan.update, student.space()));
  std::optional<compression::RingCodec> ring;
  if (plan.update.profile == "secure") ring = TRY(compression::RingCodec::create(plan.update.ring, student.space()));
  return std::unique_ptr<Workbench>(new Workbench(plan, std::move(student), std::move(codec), std::move(ring)));
}

distill::Teacher Workbench::reference(std::span<const float> parameters) {
  // The architecture was built once already, so building it again cannot fail.
  if (!reference_) reference_ = std::make_shared<models::FlatModel>(models::FlatModel::create(plan_.student, plan_.training.device).value());
  reference_->load(parameters);
  return distill::Teacher::wrap(reference_);
}

Result<Plan> read_plan(const std::string& text, const data::Splits& data) {
  const auto yaml = TRY(parse_yaml(text, "plan"));
  const auto plan = TRY(read_options<Plan>(yaml, "plan"));
  const auto& task = plan.student.task;
  const auto& train = data.train;
  if (task.channels != train.channels || task.image_size != train.height || task.classes != int(train.classes.size()))
    return fail(Code::kRefused, "it is for {} classes and {} px images of {} channels; the data here have {}, {} and {}{}", task.classes,
                task.image_size, task.channels, train.classes.size(), train.height, train.channels,
                train.segmentation ? "; data.classes tells how many classes masks have, where not all occur" : "");
  TRY(training::check_task(plan.student.model, train));
  if (!plan.teacher.sha256.empty()) {
    TRY(training::check_task(plan.teacher.spec.model, train));
    const auto& taught = plan.teacher.spec.task;
    if (taught.classes != task.classes || taught.channels != task.channels)
      return fail(Code::kRefused, "its teacher is for {} classes and {} channels, its student for {} and {}", taught.classes,
                  taught.channels, task.classes, task.channels);
  }
  const auto histograms = compression::histograms_of(train.classes.size());
  const bool scores = !train.segmentation && !plan.privacy.differential_privacy.on();
  if (plan.update.profile == "secure" && plan.update.ring.histograms != (scores ? int(histograms) : 0))
    return fail(Code::kRefused, "its totals hold {} score histograms; data of {} classes have {}", plan.update.ring.histograms,
                train.classes.size(), scores ? histograms : 0);
  if (plan.distillation.from != "none") TRY(distill::check(plan.distillation.loss, task.classes, /*in_rounds=*/true));
  return plan;
}

namespace {

/// The data's own loss, with the plan's distillation term on top where it asks for one.
Result<std::unique_ptr<training::Objective>> make_objective(Workbench& bench, const SiteState& site, std::span<const float> received,
                                                            const training::TrainingOptions& training, std::uint64_t seed) {
  const auto& term = bench.plan().distillation;
  const auto& images = site.data->train;
  if (term.from == "global")
    return distill::make_objective(term.loss, bench.reference(received), images, training, seed);
  if (term.from == "teacher" && site.teacher)
    return distill::make_objective(term.loss, *site.resident_teacher(), images, training, seed);
  return training::make_supervised(training, images);
}

/// What the site adds to the round's totals: its weight, its loss, and how the received model scores on its
/// validation split.
compression::Totals totals_of(const compression::RingCodec& ring, const data::Splits& data, double loss,
                              const training::Outcome& received) {
  compression::Totals totals;
  totals.samples = data.train.size();
  totals.weight = ring.weight_of(totals.samples);
  totals.loss = loss * double(totals.samples);
  if (ring.histograms() > 0)
    totals.scores = compression::score_histograms(received.probabilities, received.labels, received.classes);
  return totals;
}

/// Trains the bench's student for a round of the plan. Returns the training loss, 0 where it must not leave the site.
Result<double> train_student(Workbench& bench, SiteState& site, std::span<const float> received, std::uint32_t round, std::uint64_t seed) {
  const auto& plan = bench.plan();
  const auto& options = site.guard ? site.guard->training() : plan.training;
  const auto objective = TRY(make_objective(bench, site, received, options, seed));
  const training::Stretch stretch{double(round - 1) / plan.rounds, std::min(1.0, double(round) / plan.rounds), int(round - 1) * plan.training.epochs};
  if (site.guard && site.guard->one_step()) {
    TRY(private_step(bench.student(), *objective, *site.guard, site.data->train, seed, stretch));
    return 0;
  }
  const auto outcome = TRY(training::train(bench.student(), site.data->train, options, *objective, seed, stretch));
  return site.guard ? 0 : outcome.loss;
}

Result<Trained> train_round(Workbench& bench, SiteState& site, const Train& task) {
  const auto& plan = bench.plan();
  auto& student = bench.student();
  const auto received = floats_of(*task.model);
  if (received.size() != student.space().size() || task.architecture != student.space().architecture_hash())
    return fail(Code::kRefused, "the model of round {} is not a {}", task.round, plan.student.model.name);
  if (!site.initial) site.initial = task.model;
  const auto seed = RandomStream(plan.seed, "site/" + site.name).bits64();
  training::use_threads(plan.training.threads);
  student.load(received);
  const auto* ring = bench.ring();
  training::Outcome scores;
  if (ring && ring->histograms() > 0) scores = training::outcome_of(student, site.data->validation);
  if (site.guard) TRY(site.guard->debit(task.round));
  const double loss = TRY(train_student(bench, site, received, task.round, seed));
  auto delta = student.store();
  for (std::size_t i = 0; i < delta.size(); ++i) {
    delta[i] -= received[i];
    if (!std::isfinite(delta[i])) return fail(Code::kInvalid, "training in round {} gave values that are not finite", task.round);
  }
  site.pending = site.feedback;
  if (!ring) {
    const auto update_seed = RandomStream(seed, "update", {task.round}).bits64();
    std::vector<transport::StageFidelity> fidelity;
    if (!site.guard)  // of a private update nothing else may leave
      for (const auto& stage : bench.codec().fidelity(delta, update_seed, site.feedback))
        fidelity.push_back({stage.stage, stage.cosine, stage.norm_ratio});
    return Trained{task.round, TRY(bench.codec().encode(delta, update_seed, site.pending)), loss, "", std::move(fidelity)};
  }
  auto totals = totals_of(*ring, *site.data, loss, scores);
  compression::RingUpdate secret;
  secret.words = TRY(ring->encode(delta, site.data->train.size(), {plan.seed, task.round}, RandomStream(seed, "rounding", {task.round}),
                                  site.pending, &totals.fidelity));
  if (site.guard) TRY(site.guard->add_noise(secret.words, ring->options().ring_bits, RandomStream(seed, "privacy", {task.round})));
  secret.totals = totals.encode();
  return Trained{task.round, ring->pack(secret), 0, "", {}, /*totals_only=*/true};
}

}  // namespace

Trained local_round(Workbench& bench, SiteState& site, const Train& task) {
  try {
    auto trained = train_round(bench, site, task);
    if (trained) return std::move(*trained);
    return Trained{task.round, {}, 0, trained.error().message};
  } catch (const std::exception& e) {  // LibTorch: no memory, say. It must not take the daemon down.
    const std::string text = e.what();
    return Trained{task.round, {}, 0, text.substr(0, text.find('\n'))};
  }
}

}  // namespace preceptor::node
