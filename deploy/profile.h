#pragma once
#include <nlohmann/json.hpp>

#include "deploy/engine.h"
#include "models/flat_model.h"
#include "training/outcome.h"

/// What a model costs on the box at hand, measured.
namespace preceptor::deploy {

struct ProfileOptions {
  int runs = 1000;               ///< timed inferences of one image on each thread
  int warm_up = 50;              ///< before them
  std::vector<int> threads{1};   ///< engines that run side by side, a thread each: a box that serves as many at a time
  template <class V>
  void visit(V& v) {
    v("runs", runs, Range{10, 1e7});
    v("warm_up", warm_up, Range{0, 1e6});
    v("threads", threads, Range{1, 1024});
  }
};

/// Milliseconds of wall time for one image; of several threads, over all their inferences.
struct Latency {
  int threads = 1;
  double build = 0;  ///< from the network to an engine, once
  double cold = 0;   ///< the first inference after it
  double p50 = 0, p95 = 0, p99 = 0, max = 0;
};

/// An int8 engine beside the float engine of the same values.
struct Agreement {
  std::size_t images = 0, flips = 0;   ///< flips: images (or pixels, where masks are told) whose class differs
  double largest_difference = 0;       ///< of a logit
};

struct Profile {
  bool int8 = false;               ///< whether any layer computes in eight bits
  std::vector<Latency> latency;
  std::uint64_t weight_bytes = 0;  ///< packed, in memory
  std::uint64_t arena_bytes = 0;   ///< for values between operators, at batch 1
  std::uint64_t peak_rss_bytes = 0;  ///< of this process from the engine's making to the last run; LibTorch is in it
  std::optional<double> joules;    ///< an inference with one thread at work, the whole package's; nullopt: this box cannot tell
};

/// An engine for the model, which stays as it is.
Result<Engine> engine_for(models::FlatModel& model);

/// Times the model's engine on an image of noise.
Result<Profile> profile(models::FlatModel& model, const ProfileOptions& options);

/// p50 alone of some runs on one thread: what tables and searches compare by.
Result<double> median_milliseconds(models::FlatModel& model, int runs = 200);

/// The model without its rounding to eight bits, same values. For a model without any: itself, built again.
Result<models::FlatModel> without_rounding(models::FlatModel& model);

/// Engines of both on a data set.
Result<Agreement> compare_engines(models::FlatModel& int8, models::FlatModel& reference, const data::Dataset& images);

/// What the engine makes of a set: for metrics of the very code that runs in a clinic.
Result<training::Outcome> engine_outcome(models::FlatModel& model, const data::Dataset& images);

nlohmann::ordered_json to_json(const Profile& profile);
nlohmann::ordered_json to_json(const Agreement& agreement);

}  // namespace preceptor::deploy
