#include "transport/authority.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "transport/certificates.h"

namespace preceptor::transport {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxIndex = 64 << 20;

Result<IndexEntry> parse_entry(std::string_view text) {
  const auto line = nlohmann::json::parse(text, nullptr, false);
  IndexEntry entry;
  std::string event;
  const std::pair<const char*, std::string*> fields[] = {{"event", &event},
                                                         {"serial", &entry.serial},
                                                         {"name", &entry.name},
                                                         {"reason", &entry.reason},
                                                         {"at", &entry.at}};
  for (const auto& [key, value] : fields) {
    if (!line.is_object() || !line.contains(key) || !line[key].is_string())
      return fail(Code::kCorrupt, "no text '{}'", key);
    *value = line[key].get<std::string>();
  }
  if (event != "issued" && event != "revoked")
    return fail(Code::kCorrupt, "unknown event '{}'", event);
  entry.event = event == "issued" ? IndexEntry::Event::kIssued : IndexEntry::Event::kRevoked;
  TRY(check_name(entry.name));
  return entry;
}

}  // namespace

Result<DirectoryLock> DirectoryLock::take(const fs::path& directory) {
  DirectoryLock lock(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.fd_ < 0 || ::flock(lock.fd_, LOCK_EX) != 0)
    return fail(Code::kNotFound, "{}: no such directory; make it with 'preceptor ca init'",
                directory.string());
  return lock;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::vector<IndexEntry>> read_index(const fs::path& directory) {
  const auto path = directory / "index.jsonl";
  const auto text = TRY(read_text(path, kMaxIndex));
  std::vector<IndexEntry> entries;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find('\n', at), text.size());
    auto entry = parse_entry(std::string_view(text).substr(at, end - at));
    if (!entry) return in(fmt::format("{}:{}", path.string(), entries.size() + 1), entry.error());
    entries.push_back(*std::move(entry));
    at = end + 1;
  }
  return entries;
}

Result<void> append_index(const fs::path& directory, IndexEntry entry) {
  const auto text = TRY(read_text(directory / "index.jsonl", kMaxIndex));
  entry.at = fmt::format("{:%Y-%m-%dT%H:%M:%SZ}",
                         fmt::gmtime(now_in_seconds().time_since_epoch().count()));
  const nlohmann::json line = {
      {"event", entry.event == IndexEntry::Event::kIssued ? "issued" : "revoked"},
      {"serial", entry.serial},
      {"name", entry.name},
      {"reason", entry.reason},
      {"at", entry.at}};
  return write_file(directory / "index.jsonl", text + line.dump() + "\n", 0600);
}

Result<Root> open_root(const fs::path& directory) {
  auto key = TRY(read_key(directory / "ca.key"));
  auto certificate = TRY(read_certificate(directory / "ca.pem"));
  return Root{std::move(key), std::move(certificate)};
}

std::chrono::sys_seconds now_in_seconds() {
  return std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
}

OwnedTime asn1_time(std::chrono::sys_seconds at) {
  return OwnedTime(ASN1_TIME_set(nullptr, at.time_since_epoch().count()));
}

Result<OwnedInteger> asn1_integer(const std::string& hex_digits) {
  BIGNUM* number = nullptr;
  const int read = BN_hex2bn(&number, hex_digits.c_str());
  const OwnedNumber owner(number);
  if (read == 0 || read != int(hex_digits.size()))
    return fail(Code::kCorrupt, "index.jsonl: '{}' is not a serial number", hex_digits);
  return OwnedInteger(BN_to_ASN1_INTEGER(number, nullptr));
}

std::unexpected<Error> openssl_error(const char* doing) {
  return fail(Code::kIo, "OpenSSL could not {}: {}", doing, openssl_reason());
}

}  // namespace preceptor::transport
