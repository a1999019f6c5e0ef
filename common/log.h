#pragma once
#include <spdlog/spdlog.h>

namespace preceptor {

/// Sends log lines to standard error as "time level text". PRECEPTOR_LOG = trace … off sets the
/// level. A line names files, peers and keys; never a patient's value, never a secret.
void set_up_log();

}  // namespace preceptor
