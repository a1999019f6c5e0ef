// One image through every registered classification student on one thread: the engine in float32 and in 8-bit integers, and
// ONNX Runtime on the same networks. They take turns in blocks; times are the wall clock's, p50 and p95.
//   build/release/bench_inference --write models/            the networks as model files, NAME-SIZE.safetensors and NAME-SIZE-int8.safetensors
//   for f in models/*.safetensors; do preceptor deploy export $f --format onnx --out ${f%.safetensors}.onnx; done
//   build/release/bench_inference --steps --model shufflenet     microseconds of each step, slowest first
//   build/release/bench_inference --models models/ [--onnxruntime build/onnxruntime] [--model shufflenet] [--size 64] [--blocks 15] [--runs 20]
// ONNX Runtime comes with "npm install --ignore-scripts onnxruntime-node" in the folder that --onnxruntime names. Without
// --models, or where a file is missing, the engine is measured alone, on networks made here.
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <numeric>

#include <sys/wait.h>
#include <unistd.h>

#include "common/cpu.h"
#include "deploy/engine.h"
#include "deploy/kernels/int8.h"
#include "models/stem.h"
#include "models/structure.h"

namespace {

using namespace preceptor;
namespace fs = std::filesystem;

constexpr double kQuiet = 0.1;  ///< percentile that says what the code needs, where others on the machine push the median about
constexpr int kChannels = 3, kClasses = 9, kWarmUp = 10;

struct Settings {
  std::string model;
  std::vector<int> sizes{28, 64};
  int blocks = 15, runs = 20;
  bool steps = false;
  fs::path models, write, onnxruntime = "build/onnxruntime";
};

/// The networks are random: time does not depend on the values, but ranges must be seen once.
Result<models::FlatModel> made(const std::string& name, int size, bool int8) {
  torch::manual_seed(1);
  torch::NoGradGuard no_grad;
  auto plain = TRY(models::create_at_size((*models::zoo().find(name))->sizes.front(), {kClasses, kChannels, size}));
  auto spec = plain.spec();
  spec.structure.fused = true;
  auto model = TRY(models::FlatModel::create(spec));
  if (!int8) return model;
  for (const auto& [layer, module] : models::adaptable_layers(model.network())) spec.structure.int8[layer] = "observed";
  auto rounded = TRY(models::FlatModel::create(spec));
  rounded.network().train();
  for (int pass = 0; pass < 3; ++pass) rounded.network().forward(torch::randn({8, kChannels, size, size}));
  rounded.network().eval();
  return rounded;
}

std::string stem_of(const std::string& name, int size, bool int8) { return fmt::format("{}-{}{}", name, size, int8 ? "-int8" : ""); }

/// The script bench/onnx_runtime.mjs, over pipes.
class OnnxRuntime {
 public:
  explicit OnnxRuntime(const fs::path& folder) {
    int to[2], from[2];
    if (!fs::exists(folder / "node_modules/onnxruntime-node") || ::pipe(to) != 0 || ::pipe(from) != 0) return;
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(to[0], STDIN_FILENO);
      ::dup2(from[1], STDOUT_FILENO);
      for (const int end : {to[0], to[1], from[0], from[1]}) ::close(end);
      ::execlp("node", "node", "bench/onnx_runtime.mjs", fs::absolute(folder).c_str(), nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    in_ = ::fdopen(to[1], "w");
    out_ = ::fdopen(from[0], "r");
  }
  OnnxRuntime(const OnnxRuntime&) = delete;
  OnnxRuntime& operator=(const OnnxRuntime&) = delete;
  ~OnnxRuntime() {
    if (!in_) return;
    std::fclose(in_);
    std::fclose(out_);
    ::waitpid(child_, nullptr, 0);
  }
  bool there() const { return in_; }

  /// The answer's line; empty when the process has gone.
  std::string ask(const std::string& line) {
    std::fprintf(in_, "%s\n", line.c_str());
    std::fflush(in_);
    char* text = nullptr;
    std::size_t room = 0;
    const auto length = ::getline(&text, &room, out_);
    std::string answer(text && length > 0 ? text : "");
    std::free(text);
    return answer;
  }
  std::vector<double> run(const std::string& id, int count) {
    std::vector<double> milliseconds;
    std::istringstream words(ask(fmt::format("run {} {}", id, count)));
    for (double ns = 0; words >> ns;) milliseconds.push_back(1e-6 * ns);
    return milliseconds;
  }

 private:
  pid_t child_ = -1;
  std::FILE *in_ = nullptr, *out_ = nullptr;
};

struct Times {
  std::vector<double> all;
  void add(const std::vector<double>& more) { all.insert(all.end(), more.begin(), more.end()); }
  double percentile(double p) {
    std::ranges::sort(all);
    return all.empty() ? 0 : all[std::min(all.size() - 1, std::size_t(p * double(all.size())))];
  }
};

std::vector<double> run(deploy::Engine& engine, const std::vector<float>& image, int count) {
  std::vector<double> milliseconds;
  for (int i = 0; i < count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    engine.run(image, 1);
    milliseconds.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  return milliseconds;
}

/// One network in one precision: the engine, and ONNX Runtime where it has the file.
struct Contender {
  deploy::Engine engine;
  std::string onnx;  ///< the script's name for it; "": not there
  Times ours, theirs;
  int fallbacks = 0;
};

Result<Contender> contender(const Settings& s, OnnxRuntime& runtime, const std::string& name, int size, bool int8) {
  const auto stem = stem_of(name, size, int8);
  const auto file = s.models / (stem + ".safetensors"), onnx = s.models / (stem + ".onnx");
  const auto model = [&]() -> Result<models::FlatModel> {
    if (s.models.empty() || !fs::exists(file)) return made(name, size, int8);
    auto loaded = TRY(models::load_model(file));
    return std::move(loaded.model);
  };
  auto network = TRY(model());
  Contender c{TRY(deploy::Engine::create(network)), "", {}, {}, 0};
  for (const auto& step : c.engine.steps()) c.fallbacks += step.fallback;
  if (s.models.empty() || !fs::exists(onnx) || !runtime.there()) return c;
  const auto answer = runtime.ask(fmt::format("load {} {} 1 {} {}", stem, fs::absolute(onnx).string(), kChannels, size));
  if (answer.starts_with("ok")) c.onnx = stem;
  else std::fprintf(stderr, "%s: %s", onnx.c_str(), answer.c_str());
  return c;
}

void measure(const Settings& s, OnnxRuntime& runtime, const std::string& name, int size) {
  std::vector<float> image(std::size_t(kChannels * size * size));
  for (std::size_t i = 0; i < image.size(); ++i) image[i] = std::sin(float(i));
  std::vector<Contender> both;
  for (const bool int8 : {false, true}) {
    auto made_one = contender(s, runtime, name, size, int8);
    if (!made_one) return void(std::fprintf(stderr, "%s at %d px: %s\n", name.c_str(), size, made_one.error().message.c_str()));
    both.push_back(std::move(*made_one));
  }
  for (auto& c : both) {
    run(c.engine, image, kWarmUp);
    if (!c.onnx.empty()) runtime.run(c.onnx, kWarmUp);
  }
  for (int block = 0; block < s.blocks; ++block)
    for (auto& c : both) {
      c.ours.add(run(c.engine, image, s.runs));
      if (!c.onnx.empty()) c.theirs.add(runtime.run(c.onnx, s.runs));
    }
  std::string line = fmt::format("{:<20} {:>4}", name, size);
  for (auto& c : both) {
    line += fmt::format(" | {:>8.3f} {:>8.3f}", c.ours.percentile(0.5), c.ours.percentile(0.95));
    if (c.onnx.empty()) line += fmt::format(" {:>8} {:>8} {:>6} {:>6}", "-", "-", "-", "-");
    else
      line += fmt::format(" {:>8.3f} {:>8.3f} {:>6.2f} {:>6.2f}", c.theirs.percentile(0.5), c.theirs.percentile(0.95),
                          c.theirs.percentile(0.5) / c.ours.percentile(0.5), c.theirs.percentile(kQuiet) / c.ours.percentile(kQuiet));
  }
  std::printf("%s | %6.2f %6.2f %4d\n", line.c_str(), both[0].ours.percentile(0.5) / both[1].ours.percentile(0.5),
              both[0].ours.percentile(kQuiet) / both[1].ours.percentile(kQuiet), both[0].fallbacks);
  std::fflush(stdout);
}

/// Where the time goes.
Result<void> list_steps(const Settings& s, const std::string& name, int size) {
  for (const bool int8 : {false, true}) {
    auto network = TRY(made(name, size, int8));
    auto engine = TRY(deploy::Engine::create(network));
    const auto steps = engine.steps();
    const auto times = engine.profile(1, s.blocks * s.runs);
    std::vector<std::size_t> order(steps.size());
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, std::greater<>(), [&](std::size_t i) { return times[i]; });
    std::printf("\n%s\n", stem_of(name, size, int8).c_str());
    for (const auto i : order) std::printf("%9.2f us  %3zu  %s%s\n", times[i], i, steps[i].text.c_str(), steps[i].fallback ? " (LibTorch)" : "");
  }
  return {};
}

Result<void> write(const Settings& s, const std::string& name, int size) {
  for (const bool int8 : {false, true}) {
    const auto model = TRY(made(name, size, int8));
    TRY(models::save_model(s.write / (stem_of(name, size, int8) + ".safetensors"), model));
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  arrange_cpu(argv);
  Settings s;
  CLI::App app("One image through every student: the engine against ONNX Runtime, float32 and 8-bit");
  app.add_option("--model", s.model, "only names that contain this");
  app.add_option("--size", s.sizes, "pixels a side: 28, 64, 224");
  app.add_option("--blocks", s.blocks, "turns of each")->check(CLI::PositiveNumber);
  app.add_option("--runs", s.runs, "runs a turn")->check(CLI::PositiveNumber);
  app.add_option("--models", s.models, "folder with NAME-SIZE[-int8].safetensors and .onnx");
  app.add_flag("--steps", s.steps, "microseconds of each of the engine's steps, slowest first");
  app.add_option("--write", s.write, "writes the model files into this folder, and ends");
  app.add_option("--onnxruntime", s.onnxruntime, "folder with node_modules/onnxruntime-node");
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(1);
  if (!s.write.empty()) fs::create_directories(s.write);
  OnnxRuntime runtime(s.onnxruntime);
  if (s.write.empty() && !s.steps) {
    std::printf("8-bit kernels: %s; ms of one image, one thread; ratio: ONNX Runtime / ours, above 1: ours is faster\n", deploy::kernels::int8_target().c_str());
    if (runtime.there()) {
      runtime.ask("identity identity");
      Times binding;
      runtime.run("identity", kWarmUp);
      binding.add(runtime.run("identity", 500));
      std::printf("ONNX Runtime's Node.js binding alone (identity of one number): p50 %.3f, within each of its times\n", binding.percentile(0.5));
    } else {
      std::printf("no ONNX Runtime in %s\n", s.onnxruntime.c_str());
    }
    std::printf("%-20s %4s | %8s %8s %8s %8s %6s %6s | %8s %8s %8s %8s %6s %6s | %6s %6s %4s\n", "", "px", "float", "p95", "ORT", "p95", "ratio", "p10's",
                "int8", "p95", "ORT", "p95", "ratio", "p10's", "f/int8", "p10's", "by LibTorch");
  }
  for (const auto& name : models::zoo().names()) {
    if ((*models::zoo().find(name))->task != "classification" || !name.contains(s.model)) continue;
    for (const int size : s.sizes) {
      if (s.write.empty() && !s.steps) {
        measure(s, runtime, name, size);
      } else if (auto written = s.steps ? list_steps(s, name, size) : write(s, name, size); !written) {
        std::fprintf(stderr, "%s at %d px: %s\n", name.c_str(), size, written.error().message.c_str());
      }
    }
  }
}
