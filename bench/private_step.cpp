// One private training step (DP-SGD: per-image norms, clipped sum, noise) against the plain step of the same network with
// group norm, and of the same with batch norm. One thread; the three take turns; medians of CPU time. The ratio is the
// median of the ratios within a turn.
//   build/release/bench_private_step [--model mobilenet] [--size 28] [--batch 32] [--turns 15]
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <numeric>

#include "models/stem.h"
#include "training/optimizer.h"
#include "training/private_training.h"

namespace {

using namespace preceptor;

constexpr int kClasses = 9, kChannels = 3;

/// Milliseconds of CPU time.
double milliseconds(const std::function<void()>& work) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return 1e3 * double(time.tv_sec) + 1e-6 * double(time.tv_nsec);
  };
  const auto start = now();
  work();
  return now() - start;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

data::Dataset images(int count, int size) {
  data::Dataset set{size, size, kChannels, {}, {}, {}, {}};
  for (int c = 0; c < kClasses; ++c) set.classes.push_back(fmt::format("c{}", c));
  RandomStream random(1, "images");
  for (int i = 0; i < count; ++i) {
    set.labels.push_back(i % kClasses);
    for (std::size_t p = 0; p < set.image_bytes(); ++p) set.pixels.push_back(std::uint8_t(random.below(256)));
  }
  return set;
}

struct Network {
  models::FlatModel model;
  std::unique_ptr<training::Optimizer> optimizer;
};

Network network(const std::string& name, int size, const std::string& normalisation, const training::TrainingOptions& options) {
  models::ModelOptions choice{name};
  choice.normalisation = normalisation;
  auto model = models::create_at_size(choice, {kClasses, kChannels, size}).value();
  model.initialise(RandomStream(1, "init"));
  model.network().train();
  auto optimizer = training::make_optimizer(options, model.space(), model.values());
  return {std::move(model), std::move(optimizer)};
}

void run(const std::string& name, int size, int batch, int turns) {
  training::TrainingOptions options;
  options.record_privacy.on = true;
  const auto set = images(batch, size);
  const auto objective = training::make_cross_entropy(options, set);
  auto group = network(name, size, "group", options), with_batch_norm = network(name, size, "batch", options),
       own = network(name, size, "group", options);
  auto step = training::PrivateStep::create(own.model, *objective, options, batch).value();
  auto randomness = training::PrivacyRandomness::system();
  std::vector<std::size_t> index(std::size_t(batch), 0);
  std::iota(index.begin(), index.end(), std::size_t{0});
  const auto batch_of = [&](std::span<const std::size_t> some) { return training::make_batch(set, some); };
  const auto apply = [&](Network& to) {
    torch::NoGradGuard no_grad;
    to.optimizer->step(to.model.values(), to.model.gradients(), 1e-3);
  };
  const auto plain = [&](Network& of) {
    const auto made = batch_of(index);
    of.model.gradients().zero_();
    objective->loss(made, of.model.forward(made.images)).backward();
    apply(of);
  };
  const auto privately = [&] {
    step.gradients(index, batch_of, randomness).value();
    apply(own);
  };
  std::vector<double> a, b, c, ratios, of_batch;
  for (int turn = -2; turn < turns; ++turn) {
    const double x = milliseconds([&] { plain(group); }), y = milliseconds(privately), z = milliseconds([&] { plain(with_batch_norm); });
    if (turn < 0) continue;
    a.push_back(x), b.push_back(y), c.push_back(z), ratios.push_back(y / x), of_batch.push_back(y / z);
  }
  std::printf("%-20s %4d px %4d images %8.1f %8.1f %8.1f %8.2f %8.2f%s\n", name.c_str(), size, batch, median(a), median(b), median(c),
              median(ratios), median(of_batch), step.one_by_one() ? "  one by one" : "");
  std::fflush(stdout);
}

void noise_alone() {
  for (const bool secret : {true, false}) {
    auto randomness = secret ? training::PrivacyRandomness::system() : training::PrivacyRandomness::seeded(RandomStream(1, "noise"));
    std::vector<float> sum(1'000'000);
    std::vector<double> times;
    for (int i = 0; i < 15; ++i) times.push_back(milliseconds([&] { training::add_gaussian(sum, 1, randomness).value(); }));
    std::printf("noise, %s randomness: %.1f ms a million values\n", secret ? "system" : "seeded", median(times));
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> names{"mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2"};
  std::vector<int> sizes{28, 64}, batches{32, 64};
  std::string only;
  int turns = 15;
  CLI::App app("private training steps");
  app.add_option("--model", only, "names that contain this");
  app.add_option("--size", sizes);
  app.add_option("--batch", batches);
  app.add_option("--turns", turns);
  CLI11_PARSE(app, argc, argv);
  training::use_threads(1);
  noise_alone();
  std::printf("%-43s %8s %8s %8s %8s %8s\n", "", "plain ms", "private", "batch n.", "ratio", "to b. n.");
  for (const auto& name : names)
    for (const int size : sizes)
      for (const int batch : batches)
        if (name.find(only) != std::string::npos) run(name, size, batch, turns);
}
