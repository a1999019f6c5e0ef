#pragma once
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

/// The consortium's own certificate authority: one root (Ed25519), certificates of 30 days, a
/// revocation list of 7. It lives in a directory on a machine that runs no coordinator:
///   ca.key (0600) · ca.pem · crl.pem · index.jsonl, a line for each certificate issued and revoked
///   <name>/{cert.pem, key.pem (0600), ca.pem, crl.pem}: what is handed to <name>
/// Names are of a-z 0-9 . - and at most 64 long. Calls lock the directory, and each file is
/// replaced whole.
namespace preceptor::transport {

enum class CertificateRole { kCoordinator, kNode };

struct CertificateRequest {
  std::string name;  ///< what peers know it by; "coordinator" or the hospital's node
  CertificateRole role = CertificateRole::kNode;
  std::vector<std::string> hosts =
      {};         ///< DNS names and IP addresses that nodes dial; a coordinator needs one
  int days = 30;  ///< 1..398
  struct Window {
    std::chrono::sys_seconds from, until;
  };
  std::optional<Window> window = {};  ///< overrides `days`; tests make expired ones with it
};

/// Paths of what TlsFiles wants.
struct IssuedFiles {
  std::filesystem::path certificate, key, ca, crl;
};

/// Makes the directory, a root valid for ten years, and an empty revocation list.
/// Error: kRefused when the directory already holds a root.
Result<void> init_authority(const std::filesystem::path& directory, const std::string& name);

/// A new key and certificate with SAN `URI:urn:fl:node:<name>` and EKU clientAuth, or
/// `URI:urn:fl:coordinator:<name>`, the hosts and EKU serverAuth. A name may be issued again
/// (renewal): the older certificate stays valid until it expires or the name is revoked.
Result<IssuedFiles> issue_certificate(const std::filesystem::path& directory,
                                      const CertificateRequest& request);

/// Puts every certificate of `name` on the revocation list. `reason`: "unspecified",
/// "keyCompromise", "affiliationChanged", "superseded" or "cessationOfOperation" (RFC 5280). Error:
/// kNotFound for a name that has no certificate left to revoke. Carry the new crl.pem to the
/// coordinator: it cuts the node at once.
Result<void> revoke_certificate(const std::filesystem::path& directory, const std::string& name,
                                const std::string& reason = "unspecified");

/// Signs the list anew for `valid`; due before its 7 days are over, or every connection is refused.
Result<void> renew_revocation_list(const std::filesystem::path& directory,
                                   std::chrono::seconds valid = std::chrono::days(7));

/// Error: kInvalid, with the rule.
Result<void> check_name(const std::string& name);

}  // namespace preceptor::transport
