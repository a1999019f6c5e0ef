#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace preceptor::data {

/// What stands before an array in a .npy file (numpy NEP 1, numpy.lib.format; versions 1 to 3).
struct NpyHeader {
  char kind = 0;                     ///< 'u' or 'i': unsigned or signed integer
  std::size_t item_bytes = 0;        ///< 1, 2, 4 or 8, little-endian
  std::vector<std::uint64_t> shape;  ///< row-major; [] is a scalar
  std::size_t header_bytes = 0;      ///< where the array begins
  std::uint64_t array_bytes = 0;     ///< item_bytes times all extents; did not overflow
};

inline constexpr std::size_t kNpyPreamble = 12;         ///< bytes that tell how long the header is
inline constexpr std::size_t kMaxNpyHeader = 64 << 10;  ///< numpy writes 118 bytes

/// Length of the whole header, from the file's first kNpyPreamble bytes. Errors: kCorrupt for
/// another magic, an unknown version, or a length over kMaxNpyHeader.
Result<std::size_t> npy_header_bytes(std::span<const std::byte> preamble);

/// Parses a whole header. Errors: kCorrupt when it breaks the format or its size overflows;
/// kInvalid for arrays that are not read here (float, big-endian, Fortran order, structured).
Result<NpyHeader> parse_npy_header(std::span<const std::byte> header);

/// One little-endian integer of the array, widened. Errors: kCorrupt when it exceeds int64.
Result<std::int64_t> npy_integer(const NpyHeader& header, std::span<const std::byte> item);

}  // namespace preceptor::data
