#include "privacy/secure_aggregation/certificate_identity.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/file.h"
#include "privacy/secure_aggregation/secret.h"
#include "privacy/secure_aggregation/signature.h"

namespace preceptor::privacy {
namespace {

using EvpBio = std::unique_ptr<BIO, EvpFree<BIO_free_all>>;
using EvpCrl = std::unique_ptr<X509_CRL, EvpFree<X509_CRL_free>>;
using EvpStoreContext = std::unique_ptr<X509_STORE_CTX, EvpFree<X509_STORE_CTX_free>>;
constexpr std::string_view kNode = "urn:fl:node:";

template <class Object, class Read>
Result<Object> read_pem(const std::filesystem::path& path, const char* what, Read read) {
  auto text = TRY(read_file(path, 1 << 20));
  const WipeLater wipe(text);
  const EvpBio bio(BIO_new_mem_buf(text.data(), int(text.size())));
  Object object(read(bio.get(), nullptr, nullptr, const_cast<char*>("")));  // "": ask nobody for a password
  if (!object) return fail(Code::kCorrupt, "{}: not a {} in PEM ({})", path.string(), what, evp_reason());
  return object;
}

Bytes der_of(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificate, &der);
  Bytes bytes(std::size_t(std::max(size, 0)));
  std::memcpy(bytes.data(), der, bytes.size());
  OPENSSL_free(der);
  return bytes;
}

/// The one node that a certificate is for; "": none, or more than one.
std::string node_in(X509* certificate) {
  using Names = std::unique_ptr<GENERAL_NAMES, EvpFree<GENERAL_NAMES_free>>;
  const Names names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  std::string found;
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const auto* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const auto* uri = name->d.uniformResourceIdentifier;
    const std::string_view text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)), std::size_t(ASN1_STRING_length(uri)));
    if (!text.starts_with(kNode)) continue;
    if (!found.empty()) return "";
    found = text.substr(kNode.size());
  }
  return found;
}

}  // namespace

Result<CertificateSigner> CertificateSigner::open(const CertificateFiles& files) {
  const auto certificate = TRY(read_pem<EvpCertificate>(files.certificate, "certificate", PEM_read_bio_X509));
  auto key = TRY(read_pem<EvpKey>(files.key, "private key without password", PEM_read_bio_PrivateKey));
  auto name = node_in(certificate.get());
  if (name.empty()) return fail(Code::kInvalid, "{}: a certificate that names no node", files.certificate.string());
  if (X509_check_private_key(certificate.get(), key.get()) != 1)
    return fail(Code::kInvalid, "{}: not the key of {}", files.key.string(), files.certificate.string());
  auto der = der_of(certificate.get());
  if (der.size() > kMaxCredential) return fail(Code::kInvalid, "{}: {} bytes; at most {}", files.certificate.string(), der.size(), kMaxCredential);
  return CertificateSigner(std::move(name), std::move(der), std::move(key));
}

Result<Bytes> CertificateSigner::sign(std::span<const std::byte> message) const { return privacy::sign(key_.get(), message); }

Result<CertificateRoster> CertificateRoster::open(const CertificateFiles& files) {
  const auto root = TRY(read_pem<EvpCertificate>(files.ca, "certificate", PEM_read_bio_X509));
  const auto crl = TRY(read_pem<EvpCrl>(files.crl, "revocation list", PEM_read_bio_X509_CRL));
  EvpStore store(X509_STORE_new());
  if (!store || X509_STORE_add_cert(store.get(), root.get()) != 1 || X509_STORE_add_crl(store.get(), crl.get()) != 1 ||
      X509_STORE_set_flags(store.get(), X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT) != 1)
    return fail(Code::kInvalid, "{}: no roster ({})", files.ca.string(), evp_reason());
  return CertificateRoster(std::move(store), sha256(der_of(root.get())));
}

Result<void> CertificateRoster::verify(const std::string& name, std::span<const std::byte> credential, std::span<const std::byte> message,
                                       std::span<const std::byte> signature) const {
  const unsigned char* der = raw(credential);
  const EvpCertificate certificate(d2i_X509(nullptr, &der, long(credential.size())));
  if (!certificate || der != raw(credential) + credential.size()) {
    ERR_clear_error();
    return fail(Code::kRefused, "{}: its credential is no certificate", name);
  }
  if (node_in(certificate.get()) != name) return fail(Code::kRefused, "{}: a foreign key, certified for '{}'", name, node_in(certificate.get()));
  const EvpStoreContext context(X509_STORE_CTX_new());
  if (!context || X509_STORE_CTX_init(context.get(), store_.get(), certificate.get(), nullptr) != 1 ||
      X509_STORE_CTX_set_default(context.get(), "ssl_client") != 1)
    return fail(Code::kUnavailable, "{}: cannot be verified ({})", name, evp_reason());
  if (X509_verify_cert(context.get()) != 1) {
    const auto* why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()));
    ERR_clear_error();
    return fail(Code::kRefused, "{}: not on the roster: {}", name, why);
  }
  if (auto verified = privacy::verify(X509_get0_pubkey(certificate.get()), message, signature); !verified) return in(name, verified.error());
  return {};
}

}  // namespace preceptor::privacy
