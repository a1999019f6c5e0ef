#pragma once
#include <openssl/x509.h>

#include <filesystem>

#include "privacy/secure_aggregation/identity.h"

namespace preceptor::privacy {

using EvpCertificate = std::unique_ptr<X509, EvpFree<X509_free>>;
using EvpStore = std::unique_ptr<X509_STORE, EvpFree<X509_STORE_free>>;

/// PEM files as the consortium's authority hands them out.
struct CertificateFiles {
  std::filesystem::path certificate, key, ca, crl;
};

/// Signs with the key of a node's certificate (Ed25519, or ECDSA on P-256), the one it also speaks TLS with: every
/// statement of the protocol begins with its own domain, and none is what TLS signs (RFC 8446, 4.4.3). The
/// credential is the certificate, DER.
class CertificateSigner : public Signer {
 public:
  static Result<CertificateSigner> open(const CertificateFiles& files);
  /// From the SAN `URI:urn:fl:node:<name>`.
  const std::string& name() const { return name_; }
  Bytes credential() const override { return certificate_; }
  Result<Bytes> sign(std::span<const std::byte> message) const override;

 private:
  CertificateSigner(std::string name, Bytes certificate, EvpKey key)
      : name_(std::move(name)), certificate_(std::move(certificate)), key_(std::move(key)) {}
  std::string name_;
  Bytes certificate_;
  EvpKey key_;
};

/// Whoever the pinned root has certified as a node, and its revocation list does not name. The list is
/// as of the call of open. Digest: of the root.
class CertificateRoster : public Roster {
 public:
  static Result<CertificateRoster> open(const CertificateFiles& files);
  Digest digest() const override { return digest_; }
  Result<void> verify(const std::string& name, std::span<const std::byte> credential, std::span<const std::byte> message,
                      std::span<const std::byte> signature) const override;

 private:
  CertificateRoster(EvpStore store, const Digest& digest) : store_(std::move(store)), digest_(digest) {}
  EvpStore store_;
  Digest digest_;
};

}  // namespace preceptor::privacy
