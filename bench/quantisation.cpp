// Accuracy of int8 against float on PneumoniaMNIST: three networks of the zoo, trained briefly, quantised after training
// with each way to find the inputs' bounds, then fine-tuned with rounding.
//   build/release/bench_quantisation ../shared/data/pneumoniamnist/pneumoniamnist.npz [--model shufflenet] [--epochs 6]
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/cpu.h"
#include "compression/model/quantise.h"
#include "data/source.h"
#include "tests/support/temp_dir.h"
#include "training/outcome.h"
#include "training/training.h"

namespace {

using namespace preceptor;

struct Settings {
  std::string path, model;
  int epochs = 6, fine_epochs = 2, threads = 1;
  double budget = compression::QuantiseOptions{}.budget;
};

data::Splits read(const std::string& path) {
  data::SourceOptions options;
  options.kind = "medmnist";
  options.path = path;
  auto source = data::read_source(options, 1);
  if (!source) throw std::runtime_error(source.error().message);
  std::map<data::Split, std::vector<std::size_t>> index;
  for (std::size_t i = 0; i < source->images.size(); ++i) index[source->splits[i]].push_back(i);
  const auto part = [&](data::Split split) { return source->images.subset(index[split]); };
  return {part(data::Split::kTrain), part(data::Split::kValidation), part(data::Split::kTest)};
}

void print(const std::string& what, models::FlatModel& model, const data::Dataset& set, const std::string& more) {
  const test::TempDir folder;
  const auto saved = models::save_model(folder / "m", model);
  const auto metrics = training::measure(training::outcome_of(model, set), 1);
  std::printf("  %-16s accuracy %.4f   AUC %.4f   file %7.0f kB   %s\n", what.c_str(), metrics.accuracy->value, metrics.auc->value,
              saved ? double(std::filesystem::file_size(folder / "m")) / 1000 : 0, more.c_str());
  std::fflush(stdout);
}

std::string kept(const compression::QuantisedModel& done) {
  std::string names;
  std::size_t rounding = 0;
  for (const auto& layer : done.layers) {
    rounding += layer.int8;
    if (!layer.int8) names += fmt::format(" {} ({:.3f})", layer.layer, layer.error);
  }
  return fmt::format("{} of {} layers, error {:.3f}; in float:{}", rounding, done.layers.size(), done.error, names.empty() ? " none" : names);
}

template <class T>
T value_of(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

void measure(const Settings& settings, const models::ModelOptions& network, const data::Splits& data) {
  std::printf("%s %s %g\n", network.name.c_str(), network.variant.c_str(), network.width);
  auto model = value_of(models::FlatModel::create({network, {int(data.train.classes.size()), 1, data.train.height}}));
  model.initialise(RandomStream(1, "bench"));
  training::TrainingOptions recipe;
  recipe.optimizer = "adamw";
  recipe.learning_rate = 0.002;
  recipe.epochs = settings.epochs;
  recipe.threads = settings.threads;
  const auto fit = [&](models::FlatModel& network_to_fit) {
    const auto objective = training::make_supervised(recipe, data.train);
    value_of(training::train(network_to_fit, data.train, recipe, *objective, 1));
  };
  fit(model);
  print("float", model, data.test, "");
  compression::QuantiseOptions options;
  options.budget = settings.budget;
  for (const std::string calibration : {"minmax", "percentile", "mse"}) {
    options.calibration = calibration;
    auto done = value_of(compression::quantise(model, data.train, options));
    print(calibration, done.model, data.test, kept(done));
  }
  options.budget = 1e9;  // training mends what no budget allows
  auto all = value_of(compression::quantise(model, data.train, options));
  print("mse, all int8", all.model, data.test, kept(all));
  recipe.learning_rate /= 20;
  recipe.epochs = settings.fine_epochs;
  recipe.freeze_statistics = 0.5;
  for (const std::string rounding : {"observed", "learned"}) {
    options.rounding = rounding;
    auto tuned = value_of(compression::quantise(model, data.train, options));
    fit(tuned.model);
    print("tuned, " + rounding, tuned.model, data.test, "all layers");
  }
}

}  // namespace

int main(int argc, char** argv) try {
  arrange_cpu(argv);
  Settings settings;
  CLI::App app{"int8 against float on PneumoniaMNIST"};
  app.add_option("data", settings.path, "pneumoniamnist.npz")->required();
  app.add_option("--model", settings.model, "only names that contain this");
  app.add_option("--epochs", settings.epochs, "of training in float")->capture_default_str();
  app.add_option("--fine-epochs", settings.fine_epochs, "of training with rounding")->capture_default_str();
  app.add_option("--budget", settings.budget, "error of the logits at most")->capture_default_str();
  app.add_option("--threads", settings.threads, "inside LibTorch")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  training::use_threads(settings.threads);
  const auto data = read(settings.path);
  const models::ModelOptions networks[] = {{"shufflenet_v2", 0.5, "small"}, {"mobilenet_v2", 0.5, "small"}, {"mobileone", 1, "small", "s1"}};
  for (const auto& network : networks)
    if (network.name.find(settings.model) != std::string::npos) measure(settings, network, data);
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
