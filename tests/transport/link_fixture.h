#pragma once
#include <gmock/gmock.h>

#include <functional>

#include "tests/support/certificates.h"
#include "tests/support/tcp.h"
#include "transport/stream_link.h"

namespace preceptor::transport {

/// A link and what it has reported.
struct End {
  std::unique_ptr<StreamLink> link;
  std::vector<LinkEvent> events = {};

  void turn() {
    while (auto event = link->poll(std::chrono::milliseconds(1)))
      events.push_back(*std::move(event));
  }
  bool connected(const std::string& peer) const {
    bool now = false;
    for (const auto& event : events)
      if (event.peer == peer && !std::holds_alternative<Message>(event.what))
        now = std::holds_alternative<Connected>(event.what);
    return now;
  }
  std::vector<Message> messages(const std::string& peer) const {
    std::vector<Message> all;
    for (const auto& event : events)
      if (const auto* message = std::get_if<Message>(&event.what); message && event.peer == peer)
        all.push_back(*message);
    return all;
  }
  /// Reasons of the peer's Disconnected events, joined.
  std::string reasons(const std::string& peer) const {
    std::string all;
    for (const auto& event : events)
      if (const auto* gone = std::get_if<Disconnected>(&event.what); gone && event.peer == peer)
        all += (all.empty() ? "" : " | ") + gone->reason;
    return all;
  }
  std::string last_ended() const {
    return link->ended().empty() ? "" : link->ended().back().reason;
  }
};

/// A node with a valid certificate and a will of its own: speaks TLS by our session, frames by
/// hand.
class EvilNode {
 public:
  EvilNode(std::uint16_t port, const TlsFiles& files)
      : context_(*TlsContext::create(TlsSide::kClient, files)),
        session_(context_, "localhost"),
        tcp_(port) {}

  void turn() {
    session_.receive(tcp_.receive());
    const auto open = session_.handshake();
    open_ = open.value_or(false);
    std::array<std::byte, 4096> ignored;
    const bool going_on = open && (!open_ || session_.read(ignored));
    const auto output = session_.take_output();
    waiting_.insert(waiting_.end(), output.begin(), output.end());
    waiting_.erase(waiting_.begin(), waiting_.begin() + std::ptrdiff_t(tcp_.send(waiting_)));
    if (going_on && !tcp_.ended()) return;
    ended_ = true;  // told so, or cut
    tcp_.close();
  }
  bool open() const { return open_; }
  bool ended() const { return ended_; }
  void say(std::span<const std::byte> plaintext) { (void)session_.write(plaintext); }

 private:
  TlsContext context_;
  TlsSession session_;
  test::Tcp tcp_;
  Bytes waiting_;
  bool open_ = false, ended_ = false;
};

/// One coordinator on the loopback and as many nodes as a test wants, all driven by this thread.
class LinkTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::seconds kPatience{20};  ///< a deadline for what takes milliseconds

  LinkTest() {
    listen_.endpoint = "127.0.0.1:0";
    listen_.tls = consortium_.coordinator();
    listen_.reload = std::chrono::milliseconds(50);
  }
  End listen() {
    auto link = StreamLink::listen(listen_);
    if (!link) throw std::runtime_error(link.error().message);
    return {*std::move(link)};
  }
  ConnectOptions node_options(std::uint16_t port, const TlsFiles& files) const {
    ConnectOptions options;
    options.endpoint = fmt::format("localhost:{}", port);
    options.tls = files;
    options.limits.handshake_timeout = std::chrono::milliseconds(5'000);
    options.reconnect_min = std::chrono::milliseconds(20);
    options.reconnect_max = std::chrono::milliseconds(100);
    options.reload = std::chrono::milliseconds(50);
    return options;
  }
  End connect(const ConnectOptions& options) {
    auto link = StreamLink::connect(options);
    if (!link) throw std::runtime_error(link.error().message);
    return {*std::move(link)};
  }
  End connect(std::uint16_t port, const std::string& name) {
    return connect(node_options(port, consortium_.node(name)));
  }
  /// Gives each a turn until `done`; false when that never came.
  static bool until(const std::function<bool()>& done, const std::function<void()>& turns) {
    const auto deadline = Clock::now() + kPatience;
    while (!done()) {
      if (Clock::now() > deadline) return false;
      turns();
    }
    return true;
  }

  test::Consortium consortium_;
  ListenOptions listen_;
};

}  // namespace preceptor::transport
