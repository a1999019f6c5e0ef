#pragma once
// Before any header of Highway. Arrays of vectors hold the states of a scan; vectors of unknown size do not allow them.
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
