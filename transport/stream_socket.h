#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <zmq.hpp>

#include "common/bytes.h"

namespace preceptor::transport {

/// "host:port", "[::1]:port".
struct Endpoint {
  std::string host;  ///< without brackets
  std::uint16_t port = 0;
  static Result<Endpoint> parse(const std::string& text);
  std::string zmq() const;  ///< "tcp://host:port"
};

/// Raw TCP by a ZMQ_STREAM socket, which does the waiting and the buffering in its own thread.
/// Never blocks but in wait(). One thread. Three rules of this socket type are kept here so that
/// callers cannot break them: a send never waits (a dying peer would hold it for ever); when the id
/// frame is not taken, the data frame is not sent (all later sends would be out of step); and a
/// connection is known by its id alone, which is never used again, so that a notice which was under
/// way when we closed it can be told from a new connection.
class StreamSocket {
 public:
  /// `stuck`: the kernel drops a connection whose peer acknowledges nothing for so long.
  static Result<StreamSocket> listen(zmq::context_t& context, const Endpoint& at,
                                     std::chrono::milliseconds stuck);
  /// Starts one attempt, without retry. dial_failed() tells when it is over.
  static Result<StreamSocket> dial(zmq::context_t& context, const Endpoint& to,
                                   std::chrono::milliseconds stuck);

  struct Arrival {
    std::string id;
    std::string address;  ///< of the peer, for the log
    Bytes bytes;  ///< at most 8 KiB; empty: the connection began (id not seen before) or ended
  };
  std::optional<Arrival> receive();

  enum class Sent { kYes, kFull, kGone };
  /// All of `bytes` (not empty) or nothing. kFull: the peer reads too slowly, try later. kGone: no
  /// such connection.
  Sent send(const std::string& id, std::span<const std::byte> bytes);
  /// Closes the connection and forgets what it was still to be sent. kFull: not done, try later.
  Sent close(const std::string& id);

  /// Until something may have arrived, a full connection may have room, the dial failed, or the
  /// time is over.
  void wait(std::chrono::milliseconds at_most);
  bool dial_failed();
  std::uint16_t port() const;  ///< that is listened on
  /// What was taken is still sent, for so long, when the socket goes away. Without a call: dropped.
  void linger(std::chrono::milliseconds time);

 private:
  StreamSocket(zmq::context_t& context, std::chrono::milliseconds stuck);
  Sent send_frames(const std::string& id, std::span<const std::byte> bytes);

  zmq::socket_t socket_;
  zmq::socket_t monitor_;  ///< of a dial; else empty
};

}  // namespace preceptor::transport
