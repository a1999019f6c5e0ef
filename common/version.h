#pragma once

namespace preceptor {

inline constexpr const char* kVersion = "0.1.0";

}  // namespace preceptor
