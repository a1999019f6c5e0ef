#pragma once
#include <chrono>
#include <string>
#include <vector>

#include "transport/frame.h"
#include "transport/link.h"
#include "transport/tls.h"

namespace preceptor::transport {

using Clock = std::chrono::steady_clock;

/// How long a connection is waited for, and how much is kept for it; see LinkOptions for the keys.
struct ConnectionLimits {
  std::chrono::milliseconds handshake_timeout{10'000};  ///< from TCP to an accepted certificate
  std::chrono::milliseconds heartbeat{15'000};  ///< silence of ours after which a ping is sent
  std::chrono::milliseconds idle{60'000};       ///< silence of the peer after which it is given up
  std::int64_t max_queue = 8 << 20;             ///< bytes that wait for one peer
  std::int64_t max_handshake_bytes = 64 << 10;  ///< from a peer that has not shown its certificate
};

/// One connection's TLS session, frames and out-queue, without the socket: bytes in, messages and
/// bytes out. An error ends it; the owner then sends what is left in output() (the alert) and
/// closes. One thread.
class Connection {
 public:
  Connection(const TlsContext& context, const std::string& host, const ConnectionLimits& limits,
             Clock::time_point now);

  /// Bytes from the socket; whole messages are added to `messages`, also when an error follows
  /// them.
  Result<void> receive(std::span<const std::byte> bytes, Clock::time_point now,
                       std::vector<Message>& messages);
  /// Error: kUnavailable, "takes too slowly: 8400000 bytes wait"; nothing was queued then.
  Result<void> send(const Message& message, Clock::time_point now);
  /// Pings when it is time to. Error: "no handshake within 10 s", "idle for 60 s", "takes nothing
  /// for 60 s".
  Result<void> check_time(Clock::time_point now);
  /// Both sides have accepted each other's certificate. A node knows this by the coordinator's
  /// first frame: in TLS 1.3 its own handshake is over before its certificate has been looked at.
  bool open() const { return open_; }
  const std::string& peer() const { return tls_.peer(); }
  Clock::time_point began() const { return began_; }

  /// Ciphertext to be sent, oldest first; call took() for what the socket took.
  std::span<const std::byte> output() const { return std::span(queue_).subspan(queue_start_); }
  void took(std::size_t bytes, Clock::time_point now);
  void forget_output();

  void say_close();  ///< queues close_notify
  Result<void> check_certificate(const TlsContext& context) const {
    return tls_.check_again(context);
  }

 private:
  Result<void> read_frames(std::vector<Message>& messages, Clock::time_point now);
  Result<void> handle(Frame frame, std::vector<Message>& messages, Clock::time_point now);
  Result<void> queue_frame(const Bytes& frame, Clock::time_point now);
  void collect_output(Clock::time_point now);

  bool server_;
  ConnectionLimits limits_;
  TlsSession tls_;
  FrameDecoder decoder_;
  bool shaken_ = false, open_ = false;
  std::int64_t handshake_bytes_ = 0;
  std::uint64_t next_sequence_ = 0;
  Bytes queue_;
  std::size_t queue_start_ = 0;  ///< bytes of queue_ that were taken already
  Clock::time_point began_, last_received_, last_sent_, last_taken_;
};

/// "60 s", "0.3 s".
std::string in_seconds(std::chrono::milliseconds time);

}  // namespace preceptor::transport
