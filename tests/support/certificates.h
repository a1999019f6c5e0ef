#pragma once
#include <stdexcept>

#include "tests/support/temp_dir.h"
#include "transport/certificates.h"
#include "transport/tls.h"

namespace preceptor::test {

/// A consortium made at run time: its root, and TLS files for whoever a test needs.
class Consortium {
 public:
  Consortium() { value(transport::init_authority(path(), "test-consortium")); }

  /// The coordinator that every test dials on the loopback.
  transport::TlsFiles coordinator() {
    return issue({"coordinator",
                  transport::CertificateRole::kCoordinator,
                  {"localhost", "127.0.0.1"},
                  30,
                  {}});
  }
  transport::TlsFiles node(const std::string& name) { return issue({.name = name}); }
  /// From and until are hours from now.
  transport::TlsFiles node_of_another_time(const std::string& name, int from, int until) {
    const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
    return issue({.name = name,
                  .window = {{now + std::chrono::hours(from), now + std::chrono::hours(until)}}});
  }
  /// Every directory handed out sees the new list, as after copying it there.
  void revoke(const std::string& name) { value(transport::revoke_certificate(path(), name)); }
  void renew_list(std::chrono::seconds valid) {
    value(transport::renew_revocation_list(path(), valid));
  }

  transport::TlsFiles issue(const transport::CertificateRequest& request) {
    const auto files = transport::issue_certificate(path(), request);
    value(files);
    return {files->certificate, files->key, files->ca, files->crl};
  }
  const std::filesystem::path& path() const { return directory_.path(); }

 private:
  template <class T>
  static void value(const Result<T>& result) {
    if (!result) throw std::runtime_error(result.error().message);
  }
  TempDir directory_;
};

}  // namespace preceptor::test
