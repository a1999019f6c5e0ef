#pragma once
#include <chrono>
#include <optional>
#include <string>
#include <variant>

#include "transport/messages.h"

namespace preceptor::transport {

/// A peer's name is what its certificate says (network) or its site's name (simulation).
struct Connected {};
struct Disconnected {
  std::string reason;  ///< "certificate revoked", "idle for 60 s" …
};
struct LinkEvent {
  std::string peer;
  std::variant<Connected, Disconnected, Message> what;
};

/// Bytes as they crossed the socket (TLS records included) or, in memory, as framed.
struct Traffic {
  std::uint64_t sent = 0, received = 0;
};

/// Moves messages between one coordinator and its nodes. Owned and called by one thread.
class Link {
 public:
  virtual ~Link() = default;
  /// Queued, never blocking. A peer that takes nothing while its queue is full is disconnected.
  /// Messages to an unknown peer are dropped: it will say Hello again.
  virtual void send(const std::string& peer, const Message& message) = 0;
  /// The next event, or nothing within `timeout`.
  virtual std::optional<LinkEvent> poll(std::chrono::milliseconds timeout) = 0;
  virtual void disconnect(const std::string& peer, const std::string& reason) = 0;
  virtual Traffic traffic() const = 0;                          ///< all peers since the start
  virtual Traffic traffic(const std::string& peer) const = 0;   ///< one peer, over all its connections
};

}  // namespace preceptor::transport
