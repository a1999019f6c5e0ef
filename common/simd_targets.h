#pragma once
// Before any header of Highway. Vectors of unknown size have no place in these kernels; what has no AVX2 runs them lane by lane.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSE4 | HWY_SSSE3)
