#pragma once
#include <atomic>
#include <filesystem>

#include "node/site.h"
#include "transport/stream_link.h"

namespace preceptor::node {

/// A hospital's daemon, as its YAML file says it.
struct DaemonOptions {
  std::string site;         ///< which of the data's sites this is; "": the only one
  std::string name;         ///< of this hospital; its random streams are named after it; "": as `site`
  std::uint64_t seed = 1;   ///< of splitting and dealing `data`
  data::DataOptions data;
  LimitOptions limits;
  std::string state = "node-state";  ///< folder for what the site keeps: its models and its verdict
  transport::ConnectOptions link;
  template <class V>
  void visit(V& v) {
    v("site", site);
    v("name", name);
    v("seed", seed, Range{0, 9e15});
    v("data", data);
    v("limits", limits);
    v("state", state);
    v("link", link);
  }
};

/// Serves one job to its end: dials out, trains when asked, and leaves in `state` the files
/// local.safetensors, global.safetensors, personalised.safetensors and verdict.json.
/// Ends with an error when the plan is refused or training fails; `interrupted` ends it early.
Result<transport::SiteReport> run_daemon(const DaemonOptions& options, const std::atomic<bool>& interrupted);

}  // namespace preceptor::node
