#include "transport/certificates.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/ranges.h>
#include <openssl/rand.h>
#include <sys/file.h>
#include <unistd.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "common/hash.h"
#include "transport/openssl.h"

namespace preceptor::transport {
namespace {

namespace fs = std::filesystem;
using std::chrono::sys_seconds;

constexpr std::uint64_t kMaxIndex = 64 << 20;
constexpr auto kRootLife = std::chrono::days(3650);
constexpr auto kClockSkew =
    std::chrono::minutes(5);  ///< hospital clocks that run behind still accept
constexpr std::size_t kSerialBytes = 16;

const std::map<std::string, int> kReasons = {
    {"unspecified", CRL_REASON_UNSPECIFIED},
    {"keyCompromise", CRL_REASON_KEY_COMPROMISE},
    {"affiliationChanged", CRL_REASON_AFFILIATION_CHANGED},
    {"superseded", CRL_REASON_SUPERSEDED},
    {"cessationOfOperation", CRL_REASON_CESSATION_OF_OPERATION}};

using OwnedNumber = Owned<BIGNUM, BN_free>;
using OwnedInteger = Owned<ASN1_INTEGER, ASN1_INTEGER_free>;
using OwnedTime = Owned<ASN1_TIME, ASN1_TIME_free>;

sys_seconds now() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

std::unexpected<Error> openssl_error(const char* doing) {
  return fail(Code::kIo, "OpenSSL could not {}: {}", doing, openssl_reason());
}

/// One officer at a time: held for the whole of a command.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const fs::path& directory) {
    DirectoryLock lock(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (lock.fd_ < 0 || ::flock(lock.fd_, LOCK_EX) != 0)
      return fail(Code::kNotFound, "{}: no such directory; make it with 'preceptor ca init'",
                  directory.string());
    return lock;
  }
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~DirectoryLock() {
    if (fd_ >= 0) ::close(fd_);
  }

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

/// What OpenSSL writes to a memory BIO, as text.
template <class Write>
std::string pem_of(Write write) {
  const OwnedBio bio(BIO_new(BIO_s_secmem()));
  write(bio.get());
  char* text = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &text);
  return {text, std::size_t(size)};
}

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

Result<OwnedInteger> integer_of(const std::string& hex_digits) {
  BIGNUM* number = nullptr;
  if (BN_hex2bn(&number, hex_digits.c_str()) != int(hex_digits.size()))
    return fail(Code::kCorrupt, "index.jsonl: '{}' is not a serial number", hex_digits);
  const OwnedNumber owner(number);
  return OwnedInteger(BN_to_ASN1_INTEGER(number, nullptr));
}

/// 127 random bits: positive, not guessable (RFC 5280, 4.1.2.2).
Result<std::string> random_serial() {
  std::array<std::byte, kSerialBytes> bytes;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), int(bytes.size())) != 1)
    return openssl_error("draw a serial number");
  bytes[0] = (bytes[0] & std::byte{0x7f}) | std::byte{0x40};
  return hex(bytes);
}

OwnedTime time_of(sys_seconds at) {
  return OwnedTime(ASN1_TIME_set(nullptr, at.time_since_epoch().count()));
}

/// What all certificates share; the caller adds extensions and signs.
Result<OwnedCertificate> blank_certificate(const std::string& name, const std::string& serial,
                                           const CertificateRequest::Window& window,
                                           EVP_PKEY* key) {
  OwnedCertificate certificate(X509_new());
  const auto number = TRY(integer_of(serial));
  auto* subject = X509_get_subject_name(certificate.get());
  const auto* text = reinterpret_cast<const unsigned char*>(name.c_str());
  if (!X509_set_version(certificate.get(), X509_VERSION_3) ||
      !X509_set_serialNumber(certificate.get(), number.get()) ||
      !X509_set1_notBefore(certificate.get(), time_of(window.from).get()) ||
      !X509_set1_notAfter(certificate.get(), time_of(window.until).get()) ||
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
    const Owned<X509_EXTENSION, X509_EXTENSION_free> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
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

/// The root as issuing and revoking need it.
struct Root {
  OwnedKey key;
  OwnedCertificate certificate;
};
Result<Root> open_root(const fs::path& directory) {
  return Root{TRY(read_key(directory / "ca.key")), TRY(read_certificate(directory / "ca.pem"))};
}

Result<std::vector<nlohmann::json>> read_index(const fs::path& directory) {
  std::vector<nlohmann::json> lines;
  const auto text = TRY(read_text(directory / "index.jsonl", kMaxIndex));
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto line = nlohmann::json::parse(text.substr(at, end - at), nullptr, false);
    for (const char* key : {"event", "serial", "name", "reason", "at"})
      if (!line.is_object() || !line.contains(key) || !line[key].is_string())
        return fail(Code::kCorrupt, "index.jsonl: line {} is not an entry", lines.size() + 1);
    lines.push_back(std::move(line));
    at = end + 1;
  }
  return lines;
}

/// Adds a line; written before the certificate or the list that it speaks of.
Result<void> append_index(const fs::path& directory, const std::string& event,
                          const std::string& serial, const std::string& name,
                          const std::string& reason = "") {
  auto text = TRY(read_text(directory / "index.jsonl", kMaxIndex));
  const nlohmann::json line = {
      {"event", event},
      {"serial", serial},
      {"name", name},
      {"reason", reason},
      {"at", fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(now().time_since_epoch().count()))}};
  return write_file(directory / "index.jsonl", text + line.dump() + "\n", 0600);
}

/// "YYYYMMDDHHMMSSZ" for a line's "at".
std::string generalized_time(std::string at) {
  std::erase_if(at, [](char c) { return c == '-' || c == ':' || c == 'T'; });
  return at;
}

Result<void> add_revoked(X509_CRL* crl, const nlohmann::json& line) {
  Owned<X509_REVOKED, X509_REVOKED_free> entry(X509_REVOKED_new());
  const Owned<ASN1_ENUMERATED, ASN1_ENUMERATED_free> code(ASN1_ENUMERATED_new());
  const auto serial = TRY(integer_of(line["serial"]));
  const auto reason = kReasons.find(line["reason"]);
  const OwnedTime at(ASN1_TIME_new());
  if (reason == kReasons.end() ||
      !ASN1_TIME_set_string_X509(at.get(), generalized_time(line["at"]).c_str()))
    return fail(Code::kCorrupt, "index.jsonl: the entry of {} cannot be read",
                line["serial"].get<std::string>());
  X509_REVOKED_set_serialNumber(entry.get(), serial.get());
  X509_REVOKED_set_revocationDate(entry.get(), at.get());
  if (reason->second != CRL_REASON_UNSPECIFIED) {
    ASN1_ENUMERATED_set(code.get(), reason->second);
    X509_REVOKED_add1_ext_i2d(entry.get(), NID_crl_reason, code.get(), 0, 0);
  }
  if (!X509_CRL_add0_revoked(crl, entry.release()))
    return openssl_error("add to the revocation list");
  return {};
}

/// One more than the list that is there; 1 without one.
OwnedInteger next_crl_number(const fs::path& directory) {
  OwnedNumber number(BN_new());
  if (const auto last = read_crl(directory / "crl.pem")) {
    const OwnedInteger old(static_cast<ASN1_INTEGER*>(
        X509_CRL_get_ext_d2i(last->get(), NID_crl_number, nullptr, nullptr)));
    if (old) number.reset(ASN1_INTEGER_to_BN(old.get(), nullptr));
  }
  BN_add_word(number.get(), 1);
  return OwnedInteger(BN_to_ASN1_INTEGER(number.get(), nullptr));
}

/// From the index, so the list can always be made again. Copies go beside every certificate handed
/// out.
Result<void> write_crl(const fs::path& directory, const Root& root, std::chrono::seconds valid) {
  const OwnedCrl crl(X509_CRL_new());
  const auto number = next_crl_number(directory);
  X509_CRL_set_version(crl.get(), X509_CRL_VERSION_2);
  X509_CRL_set_issuer_name(crl.get(), X509_get_subject_name(root.certificate.get()));
  X509_CRL_set1_lastUpdate(crl.get(), time_of(now() - kClockSkew).get());
  X509_CRL_set1_nextUpdate(crl.get(), time_of(now() + valid).get());
  X509_CRL_add1_ext_i2d(crl.get(), NID_crl_number, number.get(), 0, 0);
  X509V3_CTX context;
  X509V3_set_ctx(&context, root.certificate.get(), nullptr, nullptr, crl.get(), 0);
  const Owned<X509_EXTENSION, X509_EXTENSION_free> issuer(
      X509V3_EXT_conf_nid(nullptr, &context, NID_authority_key_identifier, "keyid:always"));
  if (!issuer || !X509_CRL_add_ext(crl.get(), issuer.get(), -1))
    return openssl_error("add an extension");
  std::set<std::string> names;
  for (const auto& line : TRY(read_index(directory))) {
    names.insert(line["name"].get<std::string>());
    if (line["event"] == "revoked") TRY(add_revoked(crl.get(), line));
  }
  X509_CRL_sort(crl.get());
  if (!X509_CRL_sign(crl.get(), root.key.get(), nullptr))
    return openssl_error("sign the revocation list");
  const auto text = pem_of([&](BIO* to) { PEM_write_bio_X509_CRL(to, crl.get()); });
  TRY(write_file(directory / "crl.pem", text));
  for (const auto& name : names)
    if (fs::exists(directory / name / "cert.pem"))
      TRY(write_file(directory / name / "crl.pem", text));
  return {};
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
  return CertificateRequest::Window{now() - kClockSkew, now() + std::chrono::days(request.days)};
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
  const auto root =
      TRY(blank_certificate(name, serial, {now() - kClockSkew, now() + kRootLife}, key.get()));
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
  return write_crl(directory, opened, std::chrono::days(7));
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

  TRY(append_index(directory, "issued", serial, request.name));
  std::error_code error;
  fs::create_directories(home, error);
  if (error) return fail(Code::kIo, "cannot make {}: {}", home.string(), error.message());
  const IssuedFiles files{home / "cert.pem", home / "key.pem", home / "ca.pem", home / "crl.pem"};
  TRY(write_key(files.key, key.get()));
  TRY(write_certificate(files.certificate, certificate.get()));
  TRY(write_certificate(files.ca, root.certificate.get()));
  const auto crl = TRY(read_text(directory / "crl.pem", kMaxIndex));
  TRY(write_file(files.crl, crl));
  return files;
}

Result<void> revoke_certificate(const fs::path& directory, const std::string& name,
                                const std::string& reason) {
  TRY(check_name(name));
  if (!kReasons.contains(reason)) {
    std::vector<std::string> known;
    for (const auto& [word, code] : kReasons) known.push_back(word);
    return fail(Code::kInvalid, "unknown reason '{}'; known: {}", reason, fmt::join(known, ", "));
  }
  const auto lock = TRY(DirectoryLock::take(directory));
  const auto root = TRY(open_root(directory));
  std::set<std::string> serials;
  for (const auto& line : TRY(read_index(directory))) {
    if (line["name"] != name) continue;
    if (line["event"] == "issued") serials.insert(line["serial"].get<std::string>());
    if (line["event"] == "revoked") serials.erase(line["serial"].get<std::string>());
  }
  if (serials.empty())
    return fail(Code::kNotFound, "no certificate of '{}' is left to revoke", name);
  for (const auto& serial : serials) TRY(append_index(directory, "revoked", serial, name, reason));
  return write_crl(directory, root, std::chrono::days(7));
}

Result<void> renew_revocation_list(const fs::path& directory, std::chrono::seconds valid) {
  const auto lock = TRY(DirectoryLock::take(directory));
  const auto root = TRY(open_root(directory));
  return write_crl(directory, root, valid);
}

}  // namespace preceptor::transport
