#pragma once
#include "sim/simulation.h"

namespace preceptor::sim {

/// Measures what a site's own three models can be held against, on each site's own test split: the teacher, if the
/// job has one, as "teacher_auc", "teacher_dice" … of every site; and with sim.central the student trained on
/// everybody's images in one place, as "central" of the run and "central_auc" … of every site. Only a simulation can:
/// it alone has all images. Trains, so it is long; memory is one model and one batch of its activations more.
Result<coordinator::Extra> measure_references(const SimulationOptions& options, const coordinator::Job& job,
                                              const data::Federation& federation);

}  // namespace preceptor::sim
