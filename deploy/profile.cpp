#include "deploy/profile.h"

#include <torch/torch.h>

#include <algorithm>
#include <barrier>
#include <chrono>
#include <fstream>
#include <thread>

#include "deploy/energy.h"

namespace preceptor::deploy {
namespace {

using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

/// Images as a scanner might give them: noise in the network's range, the same on every machine.
at::Tensor noise(const models::TaskOptions& task) {
  RandomStream random(1, "profile");
  auto image = torch::empty({1, task.channels, task.image_size, task.image_size});
  for (auto& value : std::span(image.data_ptr<float>(), std::size_t(image.numel()))) value = float(random.uniform(-1, 1));
  return image;
}

/// The nearest rank of sorted values.
double percentile(const std::vector<double>& sorted, double p) {
  return sorted[std::min(sorted.size() - 1, std::size_t(p * double(sorted.size())))];
}

/// VmHWM of /proc/self/status, in bytes; 0 where there is none.
std::uint64_t peak_rss() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  return 0;
}

/// Makes peak_rss start anew, where the kernel allows it.
void forget_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

/// Each engine by itself on a thread of its own, all at the same time: milliseconds of every run.
std::vector<double> run_side_by_side(std::vector<Engine>& engines, const at::Tensor& image, const ProfileOptions& options) {
  const std::span<const float> pixels(image.data_ptr<float>(), std::size_t(image.numel()));
  std::vector<std::vector<double>> times(engines.size());
  std::barrier ready(std::ptrdiff_t(engines.size()));
  const auto work = [&](std::size_t i) {
    times[i].reserve(std::size_t(options.runs));
    for (int k = 0; k < options.warm_up; ++k) engines[i].run(pixels, 1);
    ready.arrive_and_wait();
    for (int k = 0; k < options.runs; ++k) {
      const auto start = Clock::now();
      engines[i].run(pixels, 1);
      times[i].push_back(milliseconds_since(start));
    }
  };
  std::vector<std::jthread> others;
  for (std::size_t i = 1; i < engines.size(); ++i) others.emplace_back(work, i);
  work(0);
  others.clear();  // joins
  std::vector<double> all;
  for (const auto& mine : times) all.insert(all.end(), mine.begin(), mine.end());
  return all;
}

Result<Latency> time(models::FlatModel& model, const ProfileOptions& options, int threads, Profile& profile) {
  const auto image = noise(model.spec().task);
  Latency latency{threads, 0, 0, 0, 0, 0, 0};
  std::vector<Engine> engines;
  auto start = Clock::now();
  engines.push_back(TRY(engine_for(model)));
  latency.build = milliseconds_since(start);
  start = Clock::now();
  engines[0].logits(image);
  latency.cold = milliseconds_since(start);
  while (int(engines.size()) < threads) engines.push_back(TRY(engine_for(model)));
  EnergyMeter meter;
  auto times = run_side_by_side(engines, image, options);
  if (const auto joules = meter.joules(); joules && threads == 1) profile.joules = *joules / (options.runs + options.warm_up);
  std::ranges::sort(times);
  latency.p50 = percentile(times, 0.5);
  latency.p95 = percentile(times, 0.95);
  latency.p99 = percentile(times, 0.99);
  latency.max = times.back();
  const auto bytes = engines[0].bytes();
  profile.weight_bytes = bytes.weights;
  profile.arena_bytes = bytes.arena;
  return latency;
}

}  // namespace

Result<Engine> engine_for(models::FlatModel& model) {
  auto copy = TRY(models::FlatModel::create(model.spec()));  // an engine fuses the network that it is made of
  copy.load(model.store());
  return Engine::create(copy);
}

Result<Profile> profile(models::FlatModel& model, const ProfileOptions& options) {
  Profile profile;
  profile.int8 = !model.spec().structure.int8.empty();
  forget_peak_rss();
  for (const int threads : options.threads) profile.latency.push_back(TRY(time(model, options, threads, profile)));
  profile.peak_rss_bytes = peak_rss();
  return profile;
}

Result<double> median_milliseconds(models::FlatModel& model, int runs) {
  const auto profiled = TRY(profile(model, {runs, std::max(10, runs / 10), {1}}));
  return profiled.latency[0].p50;
}

Result<models::FlatModel> without_rounding(models::FlatModel& model) {
  auto spec = model.spec();
  spec.structure.int8.clear();
  auto plain = TRY(models::FlatModel::create(spec));
  const auto from = model.store();
  auto values = plain.store();
  std::map<std::string, const Piece*> pieces;
  for (const auto& piece : model.space().pieces()) pieces[piece.name] = &piece;
  for (const auto& piece : plain.space().pieces())
    std::copy_n(from.begin() + std::ptrdiff_t(pieces.at(piece.name)->offset), piece.size, values.begin() + std::ptrdiff_t(piece.offset));
  plain.load(values);
  return plain;
}

Result<Agreement> compare_engines(models::FlatModel& int8, models::FlatModel& reference, const data::Dataset& images) {
  auto one = TRY(engine_for(int8)), other = TRY(engine_for(reference));
  Agreement agreement;
  training::for_each_batch([&](const at::Tensor& batch) { return torch::stack({one.logits(batch), other.logits(batch)}, 0); }, images, 16,
                           [&](std::span<const std::size_t> index, const at::Tensor& both) {
                             agreement.images += index.size();
                             agreement.largest_difference =
                                 std::max(agreement.largest_difference, (both[0] - both[1]).abs().max().item<double>());
                             agreement.flips += (both[0].argmax(1) != both[1].argmax(1)).sum().item<std::int64_t>();
                           });
  return agreement;
}

Result<training::Outcome> engine_outcome(models::FlatModel& model, const data::Dataset& images) {
  auto engine = TRY(engine_for(model));
  return training::outcome_of([&](const at::Tensor& batch) { return engine.logits(batch); }, images);
}

nlohmann::ordered_json to_json(const Profile& p) {
  nlohmann::ordered_json json{{"precision", p.int8 ? "int8" : "float32"}, {"latency_ms", nlohmann::ordered_json::array()}};
  for (const auto& l : p.latency)
    json["latency_ms"].push_back({{"threads", l.threads}, {"build", l.build}, {"cold", l.cold}, {"p50", l.p50}, {"p95", l.p95}, {"p99", l.p99}, {"max", l.max}});
  json["weight_bytes"] = p.weight_bytes;
  json["arena_bytes"] = p.arena_bytes;
  json["peak_rss_bytes"] = p.peak_rss_bytes;
  json["joules_an_inference"] = p.joules ? nlohmann::ordered_json(*p.joules) : nlohmann::ordered_json();
  return json;
}

nlohmann::ordered_json to_json(const Agreement& a) {
  return {{"images", a.images}, {"label_flips", a.flips}, {"largest_logit_difference", a.largest_difference}};
}

}  // namespace preceptor::deploy
