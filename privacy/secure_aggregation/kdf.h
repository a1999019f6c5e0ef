#pragma once
#include "privacy/secure_aggregation/secret.h"

namespace preceptor::privacy {

/// HKDF-SHA256 (RFC 5869): extract with `salt`, expand with `info`, fill `out` (at most 8160 bytes).
Result<void> hkdf(std::span<const std::byte> key, std::span<const std::byte> salt, std::span<const std::byte> info,
                  std::span<std::byte> out);

/// One 32-byte key for one purpose.
Result<Secret<32>> derive_key(std::span<const std::byte> key, std::span<const std::byte> salt,
                              std::span<const std::byte> info);

}  // namespace preceptor::privacy
