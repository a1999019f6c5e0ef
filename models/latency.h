#pragma once
#include "models/flat_model.h"

namespace preceptor::models {

/// Median time in milliseconds of one image through the network as it is deployed, on one thread, as the wall clock
/// sees it. Fuses the network: it is for inference only afterwards. Leaves LibTorch on one thread.
double milliseconds_per_image(FlatModel& model, int passes = 15);

}  // namespace preceptor::models
