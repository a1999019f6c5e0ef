#pragma once
#include "privacy/secure_aggregation/secret.h"
#include "privacy/secure_aggregation/suite.h"

namespace preceptor::privacy {

inline constexpr std::size_t kTagBytes = 16;

/// ChaCha20-Poly1305 (RFC 8439) or AES-256-GCM (SP 800-38D) with nonce zero unless given: a key seals
/// one message only and is derived for it. Returns ciphertext ‖ tag.
using Nonce = std::array<std::byte, 12>;
Result<Bytes> seal(Suite suite, const Secret<32>& key, std::span<const std::byte> plain,
                   std::span<const std::byte> associated, const Nonce& nonce = {});
/// Error: kRefused, for a ciphertext, tag or associated data that the key's owner did not seal.
Result<Bytes> open(Suite suite, const Secret<32>& key, std::span<const std::byte> sealed,
                   std::span<const std::byte> associated, const Nonce& nonce = {});

}  // namespace preceptor::privacy
