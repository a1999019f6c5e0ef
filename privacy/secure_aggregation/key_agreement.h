#pragma once
#include "privacy/secure_aggregation/secret.h"
#include "privacy/secure_aggregation/suite.h"

namespace preceptor::privacy {

/// A Diffie-Hellman key of one session: X25519 (RFC 7748) or P-256 ECDH (SP 800-56A). The private
/// half is 32 bytes in both, so that it can be shared byte by byte and come back from its shares.
class AgreementKey {
 public:
  static Result<AgreementKey> generate(Suite suite);
  /// The key that these private bytes stand for. Error: kCorrupt, for no scalar of the curve.
  static Result<AgreementKey> of(Suite suite, Secret<32> secret);

  /// 32 bytes (X25519, u little-endian) or 65 (P-256, uncompressed point).
  const Bytes& public_key() const { return public_; }
  const Secret<32>& secret() const { return secret_; }
  Suite suite() const { return suite_; }

  /// The shared secret x. Error: kRefused, for a key that is no point, or of low order (the result
  /// would be zero whatever ours is).
  Result<Secret<32>> agree(std::span<const std::byte> peer_public) const;

 private:
  AgreementKey(Suite suite, Secret<32> secret, Bytes public_key)
      : suite_(suite), secret_(std::move(secret)), public_(std::move(public_key)) {}
  Suite suite_;
  Secret<32> secret_;
  Bytes public_;
};

/// Bytes of a public key.
inline std::size_t agreement_key_size(Suite suite) { return suite == Suite::kX25519ChaCha20 ? 32 : 65; }

}  // namespace preceptor::privacy
