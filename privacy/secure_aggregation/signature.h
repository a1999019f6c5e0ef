#pragma once
#include <memory>

#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {

/// One-shot signatures by the kind of the key: Ed25519 (RFC 8032), or ECDSA on P-256 with SHA-256
/// (FIPS 186-4, DER). Callers put the domain in front of the message.
Result<Bytes> sign(EVP_PKEY* key, std::span<const std::byte> message);
/// Error: kRefused, "signature does not verify", or for a key of another kind.
Result<void> verify(EVP_PKEY* key, std::span<const std::byte> message, std::span<const std::byte> signature);

}  // namespace preceptor::privacy
