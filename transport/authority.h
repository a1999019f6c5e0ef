#pragma once
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "transport/openssl.h"

/// The authority's directory and the pieces of OpenSSL that certificates.cpp and revocation.cpp
/// share.
namespace preceptor::transport {

using OwnedNumber = Owned<BIGNUM, BN_free>;
using OwnedInteger = Owned<ASN1_INTEGER, ASN1_INTEGER_free>;
using OwnedTime = Owned<ASN1_TIME, ASN1_TIME_free>;
using OwnedExtension = Owned<X509_EXTENSION, X509_EXTENSION_free>;

constexpr auto kListLife = std::chrono::days(7);
constexpr auto kClockSkew =
    std::chrono::minutes(5);  ///< clocks that run behind still accept what is new

/// One officer at a time: held for the whole of a command.
class DirectoryLock {
 public:
  static Result<DirectoryLock> take(const std::filesystem::path& directory);
  DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

/// One line of index.jsonl.
struct IndexEntry {
  enum class Event { kIssued, kRevoked } event = Event::kIssued;
  std::string serial;  ///< hexadecimal
  std::string name;
  std::string reason = {};  ///< of a revocation
  std::string at = {};      ///< "2026-11-23T08:00:00Z"; filled in when appended
};
/// Error: kCorrupt, with the line; a lost line could be a lost revocation.
Result<std::vector<IndexEntry>> read_index(const std::filesystem::path& directory);
/// Call before writing the certificate or the list that the entry speaks of.
Result<void> append_index(const std::filesystem::path& directory, IndexEntry entry);

struct Root {
  OwnedKey key;
  OwnedCertificate certificate;
};
Result<Root> open_root(const std::filesystem::path& directory);

/// Signs the list that the index says and copies it beside every certificate handed out.
Result<void> write_revocation_list(const std::filesystem::path& directory, const Root& root,
                                   std::chrono::seconds valid);

std::chrono::sys_seconds now_in_seconds();
OwnedTime asn1_time(std::chrono::sys_seconds at);
Result<OwnedInteger> asn1_integer(const std::string& hex_digits);
std::unexpected<Error> openssl_error(const char* doing);

/// What OpenSSL writes to a memory BIO, as text.
template <class Write>
std::string pem_of(Write write) {
  const OwnedBio bio(BIO_new(BIO_s_secmem()));
  write(bio.get());
  char* text = nullptr;
  const auto size = BIO_get_mem_data(bio.get(), &text);
  return {text, std::size_t(size)};
}

}  // namespace preceptor::transport
