#pragma once
#include "data/source.h"

namespace preceptor::data {

/// Which images may be used so that no two splits share one.
struct Duplicates {
  std::vector<bool> keep;          ///< [N]
  std::size_t dropped = 0;         ///< images left out
  std::size_t distinct = 0;        ///< different pictures among these
  std::size_t contradictions = 0;  ///< distinct images that occur with more than one class or mask
};

/// Compares images by SHA-256 of their pixels. One that occurs in several splits stays in the first
/// of test, validation, train that has it. Among unassigned images only the first of equals stays,
/// because equals could be dealt to different splits. Equal images within one assigned split all
/// stay.
Duplicates find_duplicates(const Source& source);

}  // namespace preceptor::data
