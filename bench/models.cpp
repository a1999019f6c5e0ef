// Every listed size of the zoo at 28, 64 and 224 px: one image through the network, and one training step of 32 (of fewer
// where that takes too long: the line says how many), on one thread. Ours (a FlatModel: flat parameters, channels_last,
// the zoo's kernels) against the same network as LibTorch runs it unaided: its own tensors and optimiser, contiguous NCHW,
// plain operators in place of the kernels. The two take turns; times are CPU time.
//   build/release/bench_models [--quick] [--model shufflenet] [--size 64] [--repeats 30] [--cap 2] [--longest 6]
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>

#include "common/cpu.h"
#include "models/kernels/kernels.h"
#include "models/stem.h"
#include "training/optimizer.h"

namespace {

using namespace preceptor;

constexpr int kBatch = 32, kProbe = 2, kClasses = 9, kChannels = 3;
constexpr double kRate = 0.01, kMomentum = 0.9, kDecay = 5e-4;

struct Settings {
  std::string model;  ///< names that contain it; "": all
  std::vector<int> sizes{28, 64, 224};
  int repeats = 30;     ///< of a cell, at most
  double cap = 2;       ///< seconds of a cell, after which no repeat begins; one is always taken
  double longest = 6;   ///< seconds that one training step may take; where 32 images would take longer, fewer are used
  bool quick = false;
};

/// CPU time that the work takes: on one thread, what an otherwise idle core would need, whoever else is on the machine.
double seconds(const std::function<void()>& work) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
  };
  const auto start = now();
  work();
  return now() - start;
}

struct Times {
  std::vector<double> all;
  /// Milliseconds; the nearest rank.
  double percentile(double p) {
    std::ranges::sort(all);
    return 1e3 * all[std::min(all.size() - 1, std::size_t(p * double(all.size())))];
  }
};

at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& labels) {
  if (logits.dim() == 3) return torch::nn::functional::cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(2));
  return torch::nn::functional::cross_entropy(logits, labels);
}

at::Tensor labels_for(const models::ModelSpec& spec, int count) {
  const int size = spec.task.image_size;
  const bool pixels = (*models::zoo().find(spec.model.name))->task == "segmentation";
  return pixels ? torch::randint(kClasses, {count, size, size}) : torch::randint(kClasses, {count});
}

/// The network as the product runs it.
class Ours {
 public:
  explicit Ours(models::FlatModel model) : model_(std::move(model)) {
    training::TrainingOptions options;
    options.momentum = kMomentum;
    options.weight_decay = kDecay;
    optimizer_ = training::make_optimizer(options, model_.space(), model_.values());
  }
  void infer(const at::Tensor& image) {
    torch::NoGradGuard no_grad;
    model_.network().eval();
    model_.forward(image);
  }
  void train(const at::Tensor& images, const at::Tensor& labels) {
    model_.network().train();
    model_.gradients().zero_();
    loss_of(model_.forward(images), labels).backward();
    torch::NoGradGuard no_grad;
    optimizer_->step(model_.values(), model_.gradients(), kRate);
  }
  models::FlatModel& model() { return model_; }

 private:
  models::FlatModel model_;
  std::unique_ptr<training::Optimizer> optimizer_;
};

/// The same network, same values, as LibTorch's users write it.
class Eager {
 public:
  explicit Eager(models::FlatModel& like) : network_(models::build(like.spec()).value()) {
    torch::NoGradGuard no_grad;
    const auto copy = [](const auto& from, auto to) {
      for (const auto& item : from) to[item.key()].copy_(item.value());
    };
    copy(like.network().named_parameters(), network_->named_parameters());
    copy(like.network().named_buffers(), network_->named_buffers());
    optimizer_ = std::make_unique<torch::optim::SGD>(
        network_->parameters(), torch::optim::SGDOptions(kRate).momentum(kMomentum).nesterov(true).weight_decay(kDecay));
  }
  void infer(const at::Tensor& image) {
    const models::kernels::UseReference reference;
    torch::NoGradGuard no_grad;
    network_->eval();
    network_->forward(image);
  }
  void train(const at::Tensor& images, const at::Tensor& labels) {
    const models::kernels::UseReference reference;
    network_->train();
    optimizer_->zero_grad();
    loss_of(network_->forward(images), labels).backward();
    optimizer_->step();
  }

 private:
  std::shared_ptr<models::Model> network_;
  std::unique_ptr<torch::optim::SGD> optimizer_;
};

/// Both in turn until the cap, after one round that warms up; a round that alone exceeds the cap is itself the result.
void measure(const Settings& settings, const char* what, const std::function<void()>& ours, const std::function<void()>& eager) {
  Times a, b;
  double spent = 0;
  for (int i = -1; i < settings.repeats && (i < 1 || spent < settings.cap); ++i) {
    const double mine = seconds(ours), theirs = seconds(eager);
    spent += mine + theirs;
    if (i < 0 && spent < settings.cap) continue;
    a.all.push_back(mine);
    b.all.push_back(theirs);
    if (spent >= settings.cap) break;
  }
  const double mine = a.percentile(0.5), theirs = b.percentile(0.5);
  std::printf("  %-9s %9.2f %9.2f   %9.2f %9.2f   %5.2f   n=%zu\n", what, mine, a.percentile(0.95), theirs, b.percentile(0.95),
              theirs / mine, a.all.size());
}

void measure(const Settings& settings, const models::ModelOptions& size, int pixels) {
  auto model = models::create_at_size(size, {kClasses, kChannels, pixels});
  const auto title = fmt::format("{}{}{} {:g}", size.name, size.variant.empty() ? "" : " ", size.variant, size.width);
  if (!model) {
    std::printf("%s at %d px: %s\n", title.c_str(), pixels, model.error().message.c_str());
    return;
  }
  std::printf("%s (%s) at %d px, %zu parameters\n", title.c_str(), model->spec().model.stem.c_str(), pixels,
              model->space().trainable());
  model->initialise(RandomStream(1, "bench"));
  Ours ours(std::move(*model));
  Eager eager(ours.model());
  torch::manual_seed(1);
  const auto image = torch::randn({1, kChannels, pixels, pixels}), images = torch::randn({kBatch, kChannels, pixels, pixels});
  const auto labels = labels_for(ours.model().spec(), kBatch);
  measure(settings, "infer 1", [&] { ours.infer(image); }, [&] { eager.infer(image); });
  // Memory and time grow with the batch: two images tell what the full batch would take.
  const auto train = [&](int batch) {
    const auto some = images.narrow(0, 0, batch), some_labels = labels.narrow(0, 0, batch);
    return std::pair([=, &ours] { ours.train(some, some_labels); }, [=, &eager] { eager.train(some, some_labels); });
  };
  const auto [ours_few, eager_few] = train(kProbe);
  const double an_image = std::max(seconds(ours_few), seconds(eager_few)) / kProbe;
  int batch = kBatch;
  while (batch > kProbe && an_image * batch > settings.longest) batch /= 2;
  const auto [ours_step, eager_step] = train(batch);
  measure(settings, fmt::format("train {}", batch).c_str(), ours_step, eager_step);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  arrange_cpu(argv);
  Settings settings;
  std::vector<int> sizes;
  CLI::App app{"Time of the zoo's networks against LibTorch's plain operators"};
  app.add_option("--model", settings.model, "only names that contain this");
  app.add_option("--size", sizes, "pixels a side; may be repeated; default 28 64 224");
  app.add_option("--repeats", settings.repeats, "of a cell, at most")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--cap", settings.cap, "seconds of a cell")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--longest", settings.longest, "seconds of a training step, above which the batch is halved")
      ->capture_default_str();
  app.add_flag("--quick", settings.quick, "the smallest size of each model, at most 5 repeats and half a second a cell");
  CLI11_PARSE(app, argc, argv);
  if (!sizes.empty()) settings.sizes = sizes;
  if (settings.quick) {
    settings.repeats = std::min(settings.repeats, 5);
    settings.cap = std::min(settings.cap, 0.5);
  }
  at::set_num_threads(1);
  std::printf("%s; kernels: %s\n", cpu_summary().c_str(), models::kernels::target().c_str());
  std::printf("milliseconds   ours p50       p95   eager p50       p95   ratio\n");
  for (const auto& name : models::zoo().names()) {
    if (name.find(settings.model) == std::string::npos) continue;
    const auto& listed = (*models::zoo().find(name))->sizes;
    for (const auto& size : std::span(listed).first(settings.quick ? std::min<std::size_t>(1, listed.size()) : listed.size()))
      for (const int pixels : settings.sizes) try {
          measure(settings, size, pixels);
        } catch (const std::exception& error) {  // LibTorch's, when memory is short: the other cells can still be had
          std::printf("  not measured: %s\n", error.what());
        }
  }
}
