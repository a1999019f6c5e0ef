#pragma once
#include <cstdint>

namespace preceptor::privacy {

/// The ciphers of a job, fixed by its plan and never negotiated. Numbers are on the wire.
enum class Suite : std::uint8_t {
  kX25519ChaCha20 = 1,  ///< X25519, ChaCha20-Poly1305, ChaCha20 masks
  kP256Aes256 = 2,      ///< P-256 ECDH, AES-256-GCM, AES-256-CTR masks
};
inline bool is_suite(std::uint8_t number) { return number == 1 || number == 2; }

}  // namespace preceptor::privacy
