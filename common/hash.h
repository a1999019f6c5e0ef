#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace preceptor {

using Digest = std::array<std::byte, 32>;

/// SHA-256 (FIPS 180-4) by OpenSSL, fed in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  /// Digest of all that was fed; the object may not be fed afterwards.
  Digest finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

Digest sha256(std::span<const std::byte> bytes);
Digest sha256(std::string_view text);

/// 64 lower-case hexadecimal digits for a Digest; works for any bytes.
std::string hex(std::span<const std::byte> bytes);

}  // namespace preceptor
