#pragma once
// Before any header of Highway. VNNI is a target of its own; vectors of unknown size cannot be held in arrays.
#define HWY_WANT_AVX3_DL
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSE4 | HWY_SSSE3)
