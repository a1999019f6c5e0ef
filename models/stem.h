#pragma once
#include "models/flat_model.h"

namespace preceptor::models {

/// The model at this image size, with the stem that suits it: small up to 48 px, half up to 112 px, else standard;
/// where the model has no such stem or that one cannot take the size, the next nearest. model.stem is not read.
/// Error: kInvalid with each stem's reason, when none can; that of FlatModel::create otherwise.
Result<FlatModel> create_at_size(ModelOptions model, const TaskOptions& task, const std::string& device = "cpu");

}  // namespace preceptor::models
