#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "common/result.h"

namespace preceptor {

static_assert(std::endian::native == std::endian::little, "files and buffers are little-endian");

using Bytes = std::vector<std::byte>;

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

/// Appends fixed-width little-endian values to a byte vector.
class ByteWriter {
 public:
  explicit ByteWriter(Bytes& out) : out_(out) {}
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    out_.insert(out_.end(), p, p + sizeof(T));
  }
  void put(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  /// Unsigned LEB128: 7 bits a byte, low bits first.
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(std::byte(value | 0x80));
    out_.push_back(std::byte(value));
  }

 private:
  Bytes& out_;
};

/// Reads what ByteWriter wrote from bytes that nobody vouches for: never past the end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  template <class T>
  requires std::is_arithmetic_v<T> Result<T> get() {
    if (left() < sizeof(T))
      return fail(Code::kCorrupt, "truncated: {} bytes wanted, {} left", sizeof(T), left());
    T value;
    std::memcpy(&value, bytes_.data(), sizeof(T));
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }
  Result<std::span<const std::byte>> take(std::size_t count) {
    if (left() < count)
      return fail(Code::kCorrupt, "truncated: {} bytes wanted, {} left", count, left());
    auto head = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return head;
  }
  Result<std::uint64_t> varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto b = TRY(get<std::uint8_t>());
      if (shift == 63 && b > 1) break;
      value |= std::uint64_t(b & 0x7f) << shift;
      if (b < 0x80) return value;
    }
    return fail(Code::kCorrupt, "integer of more than 64 bits");
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace preceptor
