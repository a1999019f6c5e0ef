#include "common/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace preceptor {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

std::unexpected<Error> system_error(const std::filesystem::path& path, const char* verb) {
  const int number = errno;
  return fail(number == ENOENT ? Code::kNotFound : Code::kIo, "cannot {} {}: {}", verb,
              path.string(), std::strerror(number));
}

template <class Container>
Result<Container> read_whole(const std::filesystem::path& path, std::uint64_t max_bytes) {
  // O_NONBLOCK: a pipe in a file's place is refused, not waited for.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat info {};
  if (file.get() < 0 || ::fstat(file.get(), &info) != 0) return system_error(path, "open");
  if (!S_ISREG(info.st_mode)) return fail(Code::kInvalid, "{} is not a file", path.string());
  if (std::uint64_t(info.st_size) > max_bytes)
    return fail(Code::kRefused, "{} has {} bytes; at most {} are read", path.string(), info.st_size,
                max_bytes);
  Container content(std::size_t(info.st_size), typename Container::value_type{});
  for (std::size_t done = 0; done < content.size();) {
    const auto n = ::read(file.get(), content.data() + done, content.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "read");
    if (n == 0) return fail(Code::kIo, "{} became shorter while it was read", path.string());
    done += std::size_t(n);
  }
  return content;
}

Result<void> write_whole(int file, std::span<const std::byte> bytes,
                         const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const auto n = ::write(file, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return system_error(path, "write");
    bytes = bytes.subspan(std::size_t(n));
  }
  if (::fsync(file) != 0) return system_error(path, "sync");
  return {};
}

}  // namespace

Result<Bytes> read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<Bytes>(path, max_bytes);
}

Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<std::string>(path, max_bytes);
}

Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                        int mode) {
  static std::atomic<unsigned> count;
  const auto beside = fmt::format("{}.tmp{}.{}", path.string(), ::getpid(), count++);
  ::unlink(beside.c_str());  // a dead process's, perhaps with other permissions
  Descriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (file.get() < 0) return system_error(path, "write");
  auto done = write_whole(file.get(), bytes, path);
  if (done && ::rename(beside.c_str(), path.c_str()) != 0) done = system_error(path, "rename");
  if (!done) ::unlink(beside.c_str());
  return done;
}

Result<void> write_file(const std::filesystem::path& path, std::string_view text, int mode) {
  return write_file(path, bytes_of(text), mode);
}

}  // namespace preceptor
