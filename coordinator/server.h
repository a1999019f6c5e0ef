#pragma once
#include <atomic>

#include "coordinator/job.h"
#include "transport/stream_link.h"

namespace preceptor::coordinator {

/// A coordinator on the network, as its YAML file says it.
struct ServerOptions : JobOptions {
  transport::ListenOptions link;
  template <class V>
  void visit(V& v) {
    JobOptions::visit(v);
    v("link", link);
  }
};

/// Prepares the job, listens, and serves it to its end. `interrupted` ends it early; what was committed until
/// then is written all the same. `bound` is called with the port once sites may dial.
Result<nlohmann::ordered_json> serve(const ServerOptions& options, const std::string& config, const std::filesystem::path& out,
                                     const std::atomic<bool>& interrupted, const std::function<void(int port)>& bound = {});

}  // namespace preceptor::coordinator
