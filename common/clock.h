#pragma once
#include <chrono>

namespace preceptor {

/// Time as the state machines see it: milliseconds since the run began. A driver supplies it, from
/// a steady clock or from the simulator's virtual one; wall-clock steps cannot reach it.
using Time = std::chrono::milliseconds;

}  // namespace preceptor
