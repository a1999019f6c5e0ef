#pragma once
#include "coordinator/job.h"
#include "node/options.h"

namespace preceptor::sim {

/// A simulation is a job whose sites are all here.
struct SimulationOptions : coordinator::JobOptions {
  struct Sim {
    int threads = 2;       ///< sites that work at a time; never changes the result
    bool central = false;  ///< also train the student on all images in one place, for comparison
    node::LimitOptions limits;  ///< what every site is willing to do
    template <class V>
    void visit(V& v) {
      v("threads", threads, Range{1, 1024});
      v("central", central);
      v("limits", limits);
    }
  } sim;
  template <class V>
  void visit(V& v) {
    JobOptions::visit(v);
    v("sim", sim);
  }
};

/// Runs coordinator and sites on this machine: the same state machines as the network, driven by a virtual
/// clock, over a wire that encodes and decodes every message in its frame. The clock stands still while anybody
/// works or a message is under way, so that deadlines pass only when nobody would have answered.
/// Returns what it wrote to summary.json.
Result<nlohmann::ordered_json> simulate(SimulationOptions options, const std::string& config, const std::filesystem::path& out);

}  // namespace preceptor::sim
