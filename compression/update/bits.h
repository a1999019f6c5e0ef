#pragma once
#include <algorithm>
#include <bit>
#include <cstring>

#include "common/bytes.h"

namespace preceptor::compression {

/// Appends bit fields to a byte vector, low bits first. `finish` pads the last byte with zeros.
class BitWriter {
 public:
  explicit BitWriter(Bytes& out) : out_(out) {}
  void put(std::uint64_t bits, unsigned count) {  ///< count <= 32; no bit above it is set
    pending_ |= bits << held_;
    for (held_ += count; held_ >= 8; held_ -= 8, pending_ >>= 8)
      out_.push_back(std::byte(pending_));
  }
  /// Golomb-Rice: value >> k in unary (zeros, then a one), then the k low bits (Rice 1979, JPL
  /// 79-22).
  void rice(std::uint64_t value, unsigned k) {
    auto zeros = value >> k;
    for (; zeros >= 32; zeros -= 32) put(0, 32);
    put(std::uint64_t{1} << zeros, unsigned(zeros) + 1);
    put(value & ((std::uint64_t{1} << k) - 1), k);
  }
  void finish() {
    if (held_ > 0) out_.push_back(std::byte(pending_));
    pending_ = held_ = 0;
  }

 private:
  Bytes& out_;
  std::uint64_t pending_ = 0;
  unsigned held_ = 0;
};

/// Reads what BitWriter wrote from bytes that nobody vouches for.
class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// k <= 32. A value above `limit` is an error, found before its unary part costs more than limit
  /// >> k bits.
  Result<std::uint64_t> rice(unsigned k, std::uint64_t limit) {
    std::uint64_t zeros = 0;
    for (auto bits = peek(); bits == 0; bits = peek()) {
      if (zeros > limit >> k || at_ >= bytes_.size() * 8) return broken();
      zeros += kPeek, at_ += kPeek;
    }
    const auto last = unsigned(std::countr_zero(peek()));
    zeros += last, at_ += last + 1;
    const auto value = zeros << k | (peek() & ((std::uint64_t{1} << k) - 1));
    at_ += k;
    if (zeros > limit >> k || value > limit || at_ > bytes_.size() * 8) return broken();
    return value;
  }
  /// Bytes begun so far. Error when padding in the last of them is not zero.
  Result<std::size_t> finish() const {
    const auto used = (at_ + 7) / 8;
    if (at_ % 8 != 0 && std::to_integer<unsigned>(bytes_[used - 1]) >> at_ % 8 != 0)
      return broken();
    return used;
  }

 private:
  static constexpr unsigned kPeek = 56;
  static std::unexpected<Error> broken() { return fail(Code::kCorrupt, "broken bit field"); }
  /// The next 56 bits; zeros past the end.
  std::uint64_t peek() const {
    std::uint64_t word = 0;
    const auto from = std::min(at_ / 8, bytes_.size());
    std::memcpy(&word, bytes_.data() + from, std::min(sizeof word, bytes_.size() - from));
    return (word >> at_ % 8) & ((std::uint64_t{1} << kPeek) - 1);
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;  ///< in bits
};

}  // namespace preceptor::compression
