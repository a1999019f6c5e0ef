#include "transport/certificates.h"

#include <arpa/inet.h>
#include <openssl/rand.h>

#include "common/hash.h"
#include "transport/authority.h"

namespace preceptor::transport {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxList = 64 << 20;
constexpr auto kRootLife = std::chrono::days(3650);
constexpr std::size_t kSerialBytes = 16;

Result<void> write_key(const fs::path& path, EVP_PKEY* key) {
  auto text = pem_of(
      [&](BIO* to) { PEM_write_bio_PrivateKey(to, key, nullptr, nullptr, 0, nullptr, nullptr); });
  auto written = write_file(path, text, 0600);
  OPENSSL_cleanse(text.data(), text.size());
  return written;
}
Result<void> write_certificate(const fs::path& path, X509* certificate) {
  return write_file(path, pem_of([&](BIO* to) { PEM_write_bio_X509(to, certificate); }));
}

/// 127 random bits: positive, not guessable (RFC 5280, 4.1.2.2).
Result<std::string> random_serial() {
  std::array<std::byte, kSerialBytes> bytes;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), int(bytes.size())) != 1)
    return openssl_error("draw a serial number");
  bytes[0] = (bytes[0] & std::byte{0x7f}) | std::byte{0x40};
  return hex(bytes);
}

/// What all certificates share; the caller adds extensions and signs.
Result<OwnedCertificate> blank_certificate(const std::string& name, const std::string& serial,
                                           const CertificateRequest::Window& window,
                                           EVP_PKEY* key) {
  OwnedCertificate certificate(X509_new());
  const auto number = TRY(asn1_integer(serial));
  auto* subject = X509_get_subject_name(certificate.get());
  const auto* text = reinterpret_cast<const unsigned char*>(name.c_str());
  if (!X509_set_version(certificate.get(), X509_VERSION_3) ||
      !X509_set_serialNumber(certificate.get(), number.get()) ||
      !X509_set1_notBefore(certificate.get(), asn1_time(window.from).get()) ||
      !X509_set1_notAfter(certificate.get(), asn1_time(window.until).get()) ||
      !X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, text, -1, -1, 0) ||
      !X509_set_pubkey(certificate.get(), key))
    return openssl_error("fill in a certificate");
  return certificate;
}

Result<void> add_extensions(X509* certificate, X509* issuer,
                            const std::vector<std::pair<int, std::string>>& extensions) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  for (const auto& [nid, value] : extensions) {
    const OwnedExtension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
    if (!extension || !X509_add_ext(certificate, extension.get(), -1))
      return openssl_error("add an extension");
  }
  return {};
}

Result<OwnedKey> new_key() {
  OwnedKey key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return openssl_error("make a key");
  return key;
}

/// "DNS:x" or "IP:x"; nothing else may reach the extension, whose syntax has commas.
Result<std::string> alternative_name(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> address;
  if (::inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
      ::inet_pton(AF_INET6, host.c_str(), address.data()) == 1)
    return "IP:" + host;
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-';
  };
  if (host.empty() || host.size() > 253 || !std::ranges::all_of(host, allowed))
    return fail(Code::kInvalid, "host '{}' is neither a DNS name nor an IP address", host);
  return "DNS:" + host;
}

Result<CertificateRequest::Window> window_of(const CertificateRequest& request) {
  if (request.window) return *request.window;
  if (request.days < 1 || request.days > 398)
    return fail(Code::kInvalid, "a certificate is valid for 1 to 398 days, not {}", request.days);
  return CertificateRequest::Window{now_in_seconds() - kClockSkew,
                                    now_in_seconds() + std::chrono::days(request.days)};
}

}  // namespace

Result<void> check_name(const std::string& name) {
  const auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  const auto allowed = [&](char c) { return letter_or_digit(c) || c == '.' || c == '-'; };
  if (name.empty() || name.size() > 64 || !std::ranges::all_of(name, allowed) ||
      !letter_or_digit(name.front()) || !letter_or_digit(name.back()))
    return fail(Code::kInvalid,
                "name '{}': 1 to 64 of a-z, 0-9, '.', '-', first and last a letter or digit", name);
  return {};
}

Result<void> init_authority(const fs::path& directory, const std::string& name) {
  TRY(check_name(name));
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", directory.string(), error.message());
  const auto lock = TRY(DirectoryLock::take(directory));
  if (fs::exists(directory / "ca.key") || fs::exists(directory / "ca.pem"))
    return fail(Code::kRefused, "{} already holds a root; choose another directory",
                directory.string());

  const auto key = TRY(new_key());
  const auto serial = TRY(random_serial());
  const auto root = TRY(blank_certificate(
      name, serial, {now_in_seconds() - kClockSkew, now_in_seconds() + kRootLife}, key.get()));
  X509_set_issuer_name(root.get(), X509_get_subject_name(root.get()));
  TRY(add_extensions(root.get(), root.get(),
                     {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                      {NID_key_usage, "critical,keyCertSign,cRLSign"},
                      {NID_subject_key_identifier, "hash"},
                      {NID_authority_key_identifier, "keyid:always"}}));
  if (!X509_sign(root.get(), key.get(), nullptr)) return openssl_error("sign the root");
  TRY(write_file(directory / "index.jsonl", std::string_view(), 0600));
  TRY(write_key(directory / "ca.key", key.get()));
  TRY(write_certificate(directory / "ca.pem", root.get()));
  const auto opened = TRY(open_root(directory));
  return write_revocation_list(directory, opened, kListLife);
}

Result<IssuedFiles> issue_certificate(const fs::path& directory,
                                      const CertificateRequest& request) {
  TRY(check_name(request.name));
  const bool node = request.role == CertificateRole::kNode;
  auto alternatives = fmt::format("URI:urn:fl:{}:{}", node ? "node" : "coordinator", request.name);
  for (const auto& host : request.hosts) alternatives += "," + TRY(alternative_name(host));
  if (node && !request.hosts.empty())
    return fail(Code::kInvalid, "a node has no hosts: it only dials out");
  if (!node && request.hosts.empty())
    return fail(Code::kInvalid, "a coordinator needs the host names that nodes will dial");
  const auto window = TRY(window_of(request));
  const auto lock = TRY(DirectoryLock::take(directory));
  const auto root = TRY(open_root(directory));
  const auto home = directory / request.name;
  if (fs::exists(home) && !fs::is_directory(home))
    return fail(Code::kInvalid, "name '{}' is taken by a file of the authority", request.name);

  const auto key = TRY(new_key());
  const auto serial = TRY(random_serial());
  const auto certificate = TRY(blank_certificate(request.name, serial, window, key.get()));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(root.certificate.get()));
  TRY(add_extensions(certificate.get(), root.certificate.get(),
                     {{NID_basic_constraints, "critical,CA:FALSE"},
                      {NID_key_usage, "critical,digitalSignature"},
                      {NID_ext_key_usage, node ? "clientAuth" : "serverAuth"},
                      {NID_subject_key_identifier, "hash"},
                      {NID_authority_key_identifier, "keyid:always"},
                      {NID_subject_alt_name, alternatives}}));
  if (!X509_sign(certificate.get(), root.key.get(), nullptr))
    return openssl_error("sign a certificate");

  TRY(append_index(directory, {IndexEntry::Event::kIssued, serial, request.name}));
  std::error_code error;
  fs::create_directories(home, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", home.string(), error.message());
  const IssuedFiles files{home / "cert.pem", home / "key.pem", home / "ca.pem", home / "crl.pem"};
  TRY(write_key(files.key, key.get()));
  TRY(write_certificate(files.certificate, certificate.get()));
  TRY(write_certificate(files.ca, root.certificate.get()));
  const auto crl = TRY(read_text(directory / "crl.pem", kMaxList));
  TRY(write_file(files.crl, crl));
  return files;
}

}  // namespace preceptor::transport
