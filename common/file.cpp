#include "common/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
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

}  // namespace

Result<Bytes> read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<Bytes>(path, max_bytes);
}

Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t max_bytes) {
  return read_whole<std::string>(path, max_bytes);
}

Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                        int mode) {
  const auto beside = path.string() + ".tmp" + std::to_string(::getpid());
  {
    Descriptor file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (file.get() < 0) return system_error(path, "write");
    for (std::size_t done = 0; done < bytes.size();) {
      const auto n = ::write(file.get(), bytes.data() + done, bytes.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        auto error = system_error(path, "write");
        ::unlink(beside.c_str());
        return error;
      }
      done += std::size_t(n);
    }
    if (::fsync(file.get()) != 0) return system_error(path, "sync");
  }
  if (::rename(beside.c_str(), path.c_str()) != 0) return system_error(path, "rename");
  return {};
}

Result<void> write_file(const std::filesystem::path& path, std::string_view text, int mode) {
  return write_file(path, bytes_of(text), mode);
}

}  // namespace preceptor
