#pragma once
#include <string>

#include "data/dataset.h"

namespace preceptor::data {

/// SHA-256 (64 hexadecimal digits) over shape, class names, labels and pixels, in order: equal for
/// equal sets and, but for a collision, only for these. So a record can name a data set without
/// containing it.
std::string content_hash(const Dataset& dataset);

/// The same over train, validation and test.
std::string content_hash(const Splits& splits);

}  // namespace preceptor::data
