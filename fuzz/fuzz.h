#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

/// Well-formed inputs that mutation starts from. Each target defines both functions.
std::vector<std::vector<std::uint8_t>> seeds();
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
