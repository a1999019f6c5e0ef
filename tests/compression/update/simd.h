#pragma once
#include "common/simd_targets.h"

#include <hwy/targets.h>

#include <vector>

namespace preceptor::compression::test {

/// Has the kernels run as on a CPU with no more than one of Highway's targets; the CPU's own again
/// at the end.
class Forced {
 public:
  explicit Forced(std::int64_t target) { hwy::GetChosenTarget().Update(target); }
  ~Forced() { hwy::GetChosenTarget().DeInit(); }
};

/// What this CPU can run of what the kernels were compiled for.
inline std::vector<std::int64_t> simd_targets() {
  std::vector<std::int64_t> targets{HWY_STATIC_TARGET};
  for (auto left = hwy::SupportedTargets() & HWY_TARGETS; left != 0; left &= left - 1)
    if ((left & -left) != HWY_STATIC_TARGET) targets.push_back(left & -left);
  return targets;
}

}  // namespace preceptor::compression::test
