#pragma once
#include <deque>
#include <map>
#include <memory>
#include <set>

#include "common/options.h"
#include "common/random.h"
#include "transport/connection.h"
#include "transport/stream_socket.h"

namespace preceptor::transport {

/// What both ends may set.
struct LinkOptions {
  std::string endpoint = "localhost:7443";  ///< host:port
  TlsFiles tls;
  ConnectionLimits limits;
  std::chrono::milliseconds reload{5'000};  ///< how often the TLS files are looked at for a change
  template <class V>
  void visit(V& v) {
    v("endpoint", endpoint);
    tls.visit(v);
    v("handshake_timeout_ms", limits.handshake_timeout, Range{10, 6e5});
    v("heartbeat_ms", limits.heartbeat, Range{10, 6e5});
    v("idle_ms", limits.idle, Range{20, 36e5});
    v("max_queue_bytes", limits.max_queue, Range{2 << 20, 1 << 30});
    v("max_handshake_bytes", limits.max_handshake_bytes, Range{16 << 10, 1 << 20});
    v("reload_ms", reload, Range{10, 30e3});
  }
};
/// The coordinator's end. Port 0 takes a free one; see StreamLink::port().
struct ListenOptions : LinkOptions {
  ListenOptions() { endpoint = "0.0.0.0:7443"; }
  int max_connections = 256;  ///< nodes at the same time
  int max_handshakes =
      64;  ///< strangers at the same time; one more, and the oldest of them is dropped
  template <class V>
  void visit(V& v) {
    LinkOptions::visit(v);
    v("max_connections", max_connections, Range{1, 1e5});
    v("max_handshakes", max_handshakes, Range{1, 1e5});
  }
};
/// A node's end: it dials out and never listens. The coordinator's certificate must be for the host
/// dialled.
struct ConnectOptions : LinkOptions {
  std::chrono::milliseconds reconnect_min{
      1'000};  ///< first wait is up to so long, the next up to twice that …
  std::chrono::milliseconds reconnect_max{60'000};  ///< … and at most so long (full jitter)
  template <class V>
  void visit(V& v) {
    LinkOptions::visit(v);
    v("reconnect_min_ms", reconnect_min, Range{1, 6e5});
    v("reconnect_max_ms", reconnect_max, Range{1, 36e5});
  }
};

/// Messages in frames in TLS 1.3 over TCP; docs/wire.md has the layers and every limit. A peer is
/// named by its certificate, at a node always "coordinator". Whatever a peer does wrong ends that
/// peer's connection, with a reason in the log and in ended(), and nothing else. When a name
/// connects twice, the newer connection stays. Disconnected is reported exactly for peers that were
/// reported Connected, also after disconnect().
class StreamLink : public Link {
 public:
  static Result<std::unique_ptr<StreamLink>> listen(const ListenOptions& options);
  /// Returns at once; dials, and dials again after every loss, inside poll().
  static Result<std::unique_ptr<StreamLink>> connect(const ConnectOptions& options);
  /// Sends what is queued for up to a second.
  ~StreamLink() override;

  void send(const std::string& peer, const Message& message) override;
  std::optional<LinkEvent> poll(std::chrono::milliseconds timeout) override;
  void disconnect(const std::string& peer, const std::string& reason) override;
  Traffic traffic() const override { return total_; }
  Traffic traffic(const std::string& peer) const override;

  std::uint16_t port() const { return socket_ ? socket_->port() : 0; }  ///< listened on
  std::size_t connections() const { return entries_.size(); }  ///< in any state, strangers too
  /// The last connections that ended, newest last; who is a name, or an address when no name was
  /// proven.
  struct Ended {
    std::string who, reason;
  };
  const std::deque<Ended>& ended() const { return ended_; }

 private:
  struct Entry {
    Connection connection;
    std::string address;
    std::string peer = {};  ///< once reported Connected
    Traffic before_open = {};
    std::optional<Clock::time_point> closing = {};  ///< ended; until then its last bytes are sent
  };
  using Entries = std::map<std::string, Entry>;  ///< by routing id
  enum class Ending { kSayWhy, kAtOnce };

  StreamLink(const LinkOptions& options, TlsContext context, Endpoint endpoint);

  void advance();
  void handle(const StreamSocket::Arrival& arrival);
  void begin(const std::string& id, const std::string& address);
  void report_open(Entries::iterator entry);
  void end(Entries::iterator entry, const std::string& reason, Ending ending);
  void flush(Entries::iterator entry);
  void flush_all();
  bool close(Entries::iterator entry);
  void make_room();
  void check_times(Clock::time_point now);
  void check_certificates(Clock::time_point now);
  void dial(Clock::time_point now);
  void dial_later(Clock::time_point now);
  void check_dial(Clock::time_point now);
  void note_end(const std::string& who, const std::string& reason);
  void count(Entry& entry, std::uint64_t sent, std::uint64_t received);
  Entries::iterator find(const std::string& peer);
  bool is_listener() const { return context_.side() == TlsSide::kServer; }

  LinkOptions options_;
  int max_connections_ = 1, max_handshakes_ = 1;
  TlsContext context_;
  Endpoint endpoint_;
  zmq::context_t zmq_;
  std::optional<StreamSocket> socket_;
  Entries entries_;
  std::map<std::string, std::string> ids_;  ///< peer to routing id
  std::set<std::string> closed_;            ///< ids closed by us, of which a late notice may come
  std::deque<std::string> closed_order_;
  std::deque<LinkEvent> events_;
  std::deque<Ended> ended_;
  Traffic total_;
  std::map<std::string, Traffic> traffic_;
  Clock::duration tick_;
  Clock::time_point next_tick_, next_reload_, next_recheck_;
  bool full_ = false;  ///< some connection has output that the socket did not take
  std::string reload_problem_;

  struct Dialling {
    std::chrono::milliseconds min{}, max{};
    int failures = 0;
    Clock::time_point started{};
    std::optional<Clock::time_point> due;  ///< of the next attempt; none while one is under way
    RandomStream jitter;
  };
  std::optional<Dialling> dialling_;
};

}  // namespace preceptor::transport
