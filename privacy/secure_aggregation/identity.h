#pragma once
#include <map>
#include <memory>
#include <string>

#include "common/hash.h"
#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {

/// Who a node is, beyond its connection: it signs, and its credential travels with the signature.
class Signer {
 public:
  virtual ~Signer() = default;
  virtual Bytes credential() const = 0;  ///< at most kMaxCredential bytes
  virtual Result<Bytes> sign(std::span<const std::byte> message) const = 0;
};
inline constexpr std::size_t kMaxCredential = 4096;
inline constexpr std::size_t kMaxSignature = 256;

/// The identities that a node pins; no message of a coordinator changes them. Immutable.
class Roster {
 public:
  virtual ~Roster() = default;
  virtual Digest digest() const = 0;
  /// Error: kRefused, "hospital-3: …": stranger, credential of another, bad signature.
  virtual Result<void> verify(const std::string& name, std::span<const std::byte> credential,
                              std::span<const std::byte> message, std::span<const std::byte> signature) const = 0;
};

/// An Ed25519 key in memory; its credential is the public key.
class KeySigner : public Signer {
 public:
  static Result<KeySigner> generate();
  Bytes credential() const override;
  Result<Bytes> sign(std::span<const std::byte> message) const override;

 private:
  explicit KeySigner(EvpKey key) : key_(std::move(key)) {}
  EvpKey key_;
};

/// Names and their Ed25519 keys.
class KeyRoster : public Roster {
 public:
  explicit KeyRoster(std::map<std::string, Bytes> keys) : keys_(std::move(keys)) {}
  Digest digest() const override;
  Result<void> verify(const std::string& name, std::span<const std::byte> credential,
                      std::span<const std::byte> message, std::span<const std::byte> signature) const override;

 private:
  std::map<std::string, Bytes> keys_;
};

}  // namespace preceptor::privacy
