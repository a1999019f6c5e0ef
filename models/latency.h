#pragma once
#include "models/flat_model.h"

namespace preceptor::models {

/// Median time in milliseconds of one image through the network in evaluation mode, on one thread, as the wall clock
/// sees it. Leaves the model in evaluation mode and LibTorch on one thread.
double milliseconds_per_image(FlatModel& model, int passes = 15);

}  // namespace preceptor::models
