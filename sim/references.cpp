#include "sim/references.h"

#include "common/progress.h"
#include "training/outcome.h"

namespace preceptor::sim {
namespace {

/// The student before any compression, trained on all images from random values, for as many epochs as the federation had.
Result<models::FlatModel> train_central(const SimulationOptions& options, const Plan& plan, const data::Federation& federation) {
  auto images = federation.consortium.train;
  for (const auto& site : federation.sites) images.append(site.data.train);
  auto model = TRY(models::FlatModel::create({plan.student.model, plan.student.task}, options.training.device));
  model.initialise(RandomStream(options.seed, "student/init"));
  auto training = options.training;
  training.epochs = std::max(1, options.federation.rounds * options.training.epochs);
  const auto objective = training::make_supervised(training, images);
  Progress progress("central baseline");
  TRY(training::train(model, images, training, *objective, RandomStream(options.seed, "central").bits64(), {}, [&](int epoch, double loss) {
    progress.update(double(epoch + 1) / training.epochs, fmt::format("epoch {}/{}, loss {:.3f}", epoch + 1, training.epochs, loss));
    return true;
  }));
  return model;
}

void measure_at_sites(const std::string& name, const training::Network& network, const data::Federation& federation,
                      std::uint64_t seed, coordinator::Extra& extra) {
  for (const auto& site : federation.sites) {
    const auto metrics = training::measure(training::outcome_of(network, site.data.test), seed);
    extra.sites[site.name].update(coordinator::to_site_json(name, metrics));
  }
}

}  // namespace

Result<coordinator::Extra> measure_references(const SimulationOptions& options, const coordinator::Job& job,
                                              const data::Federation& federation) {
  coordinator::Extra extra;
  training::use_threads(options.training.threads);
  if (const auto* teacher = job.teacher()) measure_at_sites("teacher", teacher->network(), federation, options.seed, extra);
  if (!options.sim.central) return extra;
  auto central = TRY(train_central(options, job.plan(), federation));
  extra.run["central"] = coordinator::to_json(coordinator::evaluate(central, federation.consortium.test, options.seed));
  central.network().eval();
  measure_at_sites("central", [&](const at::Tensor& images) { return central.forward(images); }, federation, options.seed, extra);
  return extra;
}

}  // namespace preceptor::sim
