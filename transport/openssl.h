#pragma once
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>

#include "common/file.h"

/// Owners of OpenSSL's objects, and PEM in and out. For this folder and its tests only.
namespace preceptor::transport {

template <auto Free>
struct FreeBy {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T, auto Free>
using Owned = std::unique_ptr<T, FreeBy<Free>>;

using OwnedBio = Owned<BIO, BIO_free_all>;
using OwnedKey = Owned<EVP_PKEY, EVP_PKEY_free>;
using OwnedCertificate = Owned<X509, X509_free>;
using OwnedCrl = Owned<X509_CRL, X509_CRL_free>;

/// The newest reason in OpenSSL's queue of this thread, which is emptied.
inline std::string openssl_reason() {
  const auto code = ERR_peek_last_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return reason ? reason : "no reason given";
}

/// Reads the first PEM object of a file with one of OpenSSL's PEM_read_bio functions.
/// Error: "<path>: not a certificate".
template <class Object, class Read>
Result<Object> read_pem(const std::filesystem::path& path, const char* what, Read read) {
  constexpr std::uint64_t kMaxPem = 1 << 20;
  auto text = TRY(read_text(path, kMaxPem));
  const OwnedBio bio(BIO_new_mem_buf(text.data(), int(text.size())));
  // The empty password keeps OpenSSL from asking at the terminal for an encrypted key's.
  Object object(read(bio.get(), nullptr, nullptr, const_cast<char*>("")));
  OPENSSL_cleanse(text.data(), text.size());
  if (!object)
    return fail(Code::kCorrupt, "{}: not a {} in PEM ({})", path.string(), what, openssl_reason());
  return object;
}
inline Result<OwnedCertificate> read_certificate(const std::filesystem::path& path) {
  return read_pem<OwnedCertificate>(path, "certificate", PEM_read_bio_X509);
}
inline Result<OwnedKey> read_key(const std::filesystem::path& path) {
  return read_pem<OwnedKey>(path, "private key without password", PEM_read_bio_PrivateKey);
}
inline Result<OwnedCrl> read_crl(const std::filesystem::path& path) {
  return read_pem<OwnedCrl>(path, "revocation list", PEM_read_bio_X509_CRL);
}

}  // namespace preceptor::transport
