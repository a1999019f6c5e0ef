#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <utility>

#include "common/bytes.h"

namespace preceptor::test {

/// A plain TCP connection on the loopback that never blocks: what a peer without our code would
/// use.
class Tcp {
 public:
  explicit Tcp(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    auto to = loopback(port);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0)
      throw std::runtime_error("cannot connect");
    ::fcntl(fd_, F_SETFL, O_NONBLOCK);
  }
  Tcp(Tcp&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Tcp() { close(); }

  /// What the kernel took; the rest is the caller's.
  std::size_t send(std::span<const std::byte> bytes) {
    const auto sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    return sent > 0 ? std::size_t(sent) : 0;
  }
  /// What is there now; nothing when nothing is. See ended().
  Bytes receive() {
    std::array<std::byte, 16 << 10> piece;
    Bytes all;
    for (;;) {
      const auto size = ::recv(fd_, piece.data(), piece.size(), 0);
      if (size == 0 || (size < 0 && errno != EAGAIN)) ended_ = true;
      if (size <= 0) return all;
      all.insert(all.end(), piece.begin(), piece.begin() + size);
    }
  }
  bool ended() const { return ended_; }  ///< the other side has closed, as receive() saw
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  friend class TcpRelay;
  Tcp(int fd, int) : fd_(fd) { ::fcntl(fd_, F_SETFL, O_NONBLOCK); }
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }
  int fd_;
  bool ended_ = false;
};

/// Stands between a node and its coordinator and keeps every byte. Call turn() often, from one
/// thread.
class TcpRelay {
 public:
  explicit TcpRelay(std::uint16_t to)
      : to_(to), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    auto at = Tcp::loopback(0);
    socklen_t size = sizeof at;
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&at), size) != 0 ||
        ::listen(listener_, 4) != 0 ||
        ::getsockname(listener_, reinterpret_cast<sockaddr*>(&at), &size) != 0)
      throw std::runtime_error("cannot listen");
    ::fcntl(listener_, F_SETFL, O_NONBLOCK);
    port_ = ntohs(at.sin_port);
  }
  ~TcpRelay() { ::close(listener_); }

  void turn() {
    if (!node_) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      node_.reset(new Tcp(fd, 0));
      coordinator_.reset(new Tcp(to_));
    }
    carry(*node_, *coordinator_, from_node, to_coordinator_);
    carry(*coordinator_, *node_, from_coordinator, to_node_);
  }
  std::uint16_t port() const { return port_; }

  Bytes from_node, from_coordinator;  ///< all that was carried

 private:
  static void carry(Tcp& from, Tcp& to, Bytes& seen, Bytes& waiting) {
    const auto bytes = from.receive();
    seen.insert(seen.end(), bytes.begin(), bytes.end());
    waiting.insert(waiting.end(), bytes.begin(), bytes.end());
    waiting.erase(waiting.begin(), waiting.begin() + std::ptrdiff_t(to.send(waiting)));
  }
  std::uint16_t to_, port_ = 0;
  int listener_;
  std::unique_ptr<Tcp> node_, coordinator_;
  Bytes to_node_, to_coordinator_;
};

}  // namespace preceptor::test
