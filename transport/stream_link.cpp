#include "transport/stream_link.h"

#include <algorithm>
#include <random>
#include <thread>

#include "common/log.h"

namespace preceptor::transport {
namespace {

using std::chrono::milliseconds;

constexpr const char* kCoordinator = "coordinator";
constexpr std::size_t kPiece = 64 << 10;   ///< bytes handed to the socket at a time
constexpr int kArrivalsATurn = 64;         ///< then timers get their turn
constexpr milliseconds kLastWords{1'000};  ///< for the alert or close_notify to reach the peer
constexpr milliseconds kRetryFull{10};  ///< in case the socket's hint that there is room was missed
constexpr milliseconds kRecheck{
    60'000};                 ///< certificates of live connections, even if no file changed
constexpr int kLasted = 10;  ///< times reconnect_min, after which a connection was a good one
constexpr std::size_t kClosedKept = 4096, kEndedKept = 64;

milliseconds until(Clock::time_point then, Clock::time_point now) {
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(then - now));
}

}  // namespace

StreamLink::StreamLink(const LinkOptions& options, TlsContext context, Endpoint endpoint)
    : options_(options),
      context_(std::move(context)),
      endpoint_(std::move(endpoint)),
      tick_(std::clamp<milliseconds>(
          std::min({options.limits.handshake_timeout, options.limits.heartbeat, options.limits.idle,
                    options.reload}) /
              4,
          milliseconds(5), milliseconds(1'000))),
      next_tick_(Clock::now()),
      next_reload_(next_tick_ + options.reload),
      next_recheck_(next_tick_ + kRecheck) {}

Result<std::unique_ptr<StreamLink>> StreamLink::listen(const ListenOptions& options) {
  auto context = TRY(TlsContext::create(TlsSide::kServer, options.tls));
  auto endpoint = TRY(Endpoint::parse(options.endpoint));
  std::unique_ptr<StreamLink> link(
      new StreamLink(options, std::move(context), std::move(endpoint)));
  link->max_connections_ = options.max_connections;
  link->max_handshakes_ = options.max_handshakes;
  link->socket_ = TRY(StreamSocket::listen(link->zmq_, link->endpoint_, options.limits.idle));
  return link;
}

Result<std::unique_ptr<StreamLink>> StreamLink::connect(const ConnectOptions& options) {
  auto context = TRY(TlsContext::create(TlsSide::kClient, options.tls));
  auto endpoint = TRY(Endpoint::parse(options.endpoint));
  std::unique_ptr<StreamLink> link(
      new StreamLink(options, std::move(context), std::move(endpoint)));
  link->dialling_ = Dialling{.min = options.reconnect_min,
                             .max = std::max(options.reconnect_min, options.reconnect_max),
                             .failures = 0,
                             .started = {},
                             .due = Clock::now(),
                             .jitter = RandomStream(std::random_device{}(), "reconnect")};
  return link;
}

StreamLink::~StreamLink() {
  if (!socket_) return;
  const auto deadline = Clock::now() + kLastWords;
  for (auto& [id, entry] : entries_) {
    if (!entry.closing) entry.connection.say_close();
    entry.closing = deadline;
  }
  do {
    // Notices of peers that are gone must be taken: until then their connections only look full.
    while (const auto arrival = socket_->receive())
      if (entries_.contains(arrival->id)) handle(*arrival);
    flush_all();
    if (full_) socket_->wait(kRetryFull);
  } while (full_ && Clock::now() < deadline);
  socket_->linger(until(deadline, Clock::now()));
}

void StreamLink::send(const std::string& peer, const Message& message) {
  const auto entry = find(peer);
  if (entry == entries_.end()) return;
  if (const auto sent = entry->second.connection.send(message, Clock::now()); !sent)
    return end(entry, sent.error().message, Ending::kAtOnce);
  flush(entry);
}

std::optional<LinkEvent> StreamLink::poll(milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  for (;;) {
    if (!events_.empty()) {
      auto event = std::move(events_.front());
      events_.pop_front();
      return event;
    }
    advance();
    const auto now = Clock::now();
    if (!events_.empty()) continue;
    if (now >= deadline) return std::nullopt;
    auto wake = std::min(deadline, next_tick_);
    if (full_) wake = std::min(wake, now + kRetryFull);
    if (dialling_ && dialling_->due) wake = std::min(wake, *dialling_->due);
    socket_ ? socket_->wait(until(wake, now)) : std::this_thread::sleep_for(until(wake, now));
  }
}

void StreamLink::disconnect(const std::string& peer, const std::string& reason) {
  if (const auto entry = find(peer); entry != entries_.end()) end(entry, reason, Ending::kSayWhy);
}

Traffic StreamLink::traffic(const std::string& peer) const {
  const auto found = traffic_.find(peer);
  return found == traffic_.end() ? Traffic{} : found->second;
}

/// One turn: timers, what arrived (until it makes an event), what waits to be sent.
void StreamLink::advance() {
  const auto now = Clock::now();
  if (dialling_) check_dial(now);
  if (now >= next_tick_) {
    next_tick_ = now + tick_;
    check_certificates(now);
    check_times(now);
  }
  for (int turn = 0; socket_ && events_.empty() && turn < kArrivalsATurn; ++turn) {
    const auto arrival = socket_->receive();
    if (!arrival) break;
    handle(*arrival);
  }
  flush_all();
}

void StreamLink::handle(const StreamSocket::Arrival& arrival) {
  const auto entry = entries_.find(arrival.id);
  if (entry == entries_.end()) {
    // Late bytes or the late notice of a connection that we have closed are nobody's.
    if (arrival.bytes.empty() && !closed_.contains(arrival.id)) begin(arrival.id, arrival.address);
    return;
  }
  count(entry->second, 0, arrival.bytes.size());
  if (arrival.bytes.empty()) {  // the socket has already forgotten it
    if (!entry->second.closing) end(entry, "connection lost", Ending::kAtOnce);
    entries_.erase(arrival.id);
    return;
  }
  if (entry->second.closing) return;
  std::vector<Message> messages;
  const auto received = entry->second.connection.receive(arrival.bytes, Clock::now(), messages);
  if (entry->second.connection.open() && entry->second.peer.empty()) report_open(entry);
  if (entry->second.closing) return;
  for (auto& message : messages) events_.push_back({entry->second.peer, std::move(message)});
  if (received) return flush(entry);
  const bool peer_ended_it =
      received.error().code == Code::kUnavailable || received.error().message.starts_with("peer ");
  end(entry, received.error().message, peer_ended_it ? Ending::kAtOnce : Ending::kSayWhy);
}

void StreamLink::begin(const std::string& id, const std::string& address) {
  if (is_listener()) make_room();
  const auto [entry, added] =
      entries_.emplace(id, Entry{Connection(context_, is_listener() ? "" : endpoint_.host,
                                            options_.limits, Clock::now()),
                                 address});
  flush(entry);
}

/// A stranger more than allowed takes the place of the oldest one, so that a flood cannot shut the
/// door.
void StreamLink::make_room() {
  auto oldest = entries_.end();
  int strangers = 0;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (!entry->second.peer.empty() && !entry->second.closing) continue;
    ++strangers;
    if (oldest == entries_.end() ||
        entry->second.connection.began() < oldest->second.connection.began())
      oldest = entry;
  }
  if (strangers < max_handshakes_) return;
  if (!oldest->second.closing)
    end(oldest, "too many handshakes at once", Ending::kAtOnce);
  else
    close(oldest);
}

void StreamLink::report_open(Entries::iterator entry) {
  const auto peer = is_listener() ? entry->second.connection.peer() : kCoordinator;
  if (const auto older = find(peer); older != entries_.end())
    end(older, "replaced by a newer connection of the same name", Ending::kSayWhy);
  if (int(ids_.size()) >= max_connections_)
    return end(entry, fmt::format("{} nodes are connected, which is the limit", ids_.size()),
               Ending::kSayWhy);
  spdlog::info("{} connected from {}", entry->second.connection.peer(), entry->second.address);
  entry->second.peer = peer;
  ids_[peer] = entry->first;
  traffic_[peer].sent += entry->second.before_open.sent;
  traffic_[peer].received += entry->second.before_open.received;
  events_.push_back({peer, Connected{}});
}

/// Reports and forgets the peer now; the TCP connection goes at once, or once its last words were
/// taken.
void StreamLink::end(Entries::iterator entry, const std::string& reason, Ending ending) {
  auto& [connection, address, peer, before_open, closing] = entry->second;
  const auto now = Clock::now();
  note_end(peer.empty() ? (connection.peer().empty() ? address : connection.peer()) : peer, reason);
  if (!peer.empty()) {
    ids_.erase(peer);
    events_.push_back({peer, Disconnected{reason}});
  }
  if (dialling_) {
    if (!peer.empty() && now - connection.began() >= kLasted * dialling_->min)
      dialling_->failures = 0;
    dial_later(now);
  }
  closing = now + kLastWords;
  if (ending == Ending::kSayWhy) {
    connection.say_close();
    return flush(entry);
  }
  connection.forget_output();
  closing = now;
  close(entry);
}

void StreamLink::flush_all() {
  full_ = false;
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) flush(entry);
}

void StreamLink::flush(Entries::iterator entry) {
  auto& connection = entry->second.connection;
  while (!connection.output().empty()) {
    const auto piece = connection.output().first(std::min(kPiece, connection.output().size()));
    const auto sent = socket_->send(entry->first, piece);
    if (sent == StreamSocket::Sent::kFull) full_ = true;
    if (sent == StreamSocket::Sent::kGone) connection.forget_output();  // its notice is on the way
    if (sent != StreamSocket::Sent::kYes) break;
    count(entry->second, piece.size(), 0);
    connection.took(piece.size(), Clock::now());
  }
}

/// True when the connection is gone; else it is tried again with the next tick.
bool StreamLink::close(Entries::iterator entry) {
  if (socket_->close(entry->first) == StreamSocket::Sent::kFull) return false;
  closed_.insert(entry->first);
  closed_order_.push_back(entry->first);
  if (closed_order_.size() > kClosedKept) {
    closed_.erase(closed_order_.front());
    closed_order_.pop_front();
  }
  entries_.erase(entry);
  return true;
}

void StreamLink::check_times(Clock::time_point now) {
  for (auto next = entries_.begin(); next != entries_.end();) {
    const auto entry = next++;
    if (entry->second.closing) {
      if (now >= *entry->second.closing) close(entry);
    } else if (const auto alive = entry->second.connection.check_time(now); !alive) {
      end(entry, alive.error().message, Ending::kAtOnce);
    }
  }
}

void StreamLink::check_certificates(Clock::time_point now) {
  if (now < next_reload_) return;
  next_reload_ = now + options_.reload;
  const auto changed = context_.reload_if_changed();
  const auto problem = changed ? "" : changed.error().message;
  if (!problem.empty() && problem != reload_problem_)
    spdlog::error("{}; the old files stay in use", problem);
  reload_problem_ = problem;
  if (!changed || (!*changed && now < next_recheck_)) return;
  next_recheck_ = now + kRecheck;
  for (auto next = entries_.begin(); next != entries_.end();) {
    const auto entry = next++;
    if (entry->second.peer.empty() || entry->second.closing) continue;
    if (const auto good = entry->second.connection.check_certificate(context_); !good)
      end(entry, good.error().message, Ending::kSayWhy);
  }
}

void StreamLink::check_dial(Clock::time_point now) {
  if (dialling_->due) {
    if (now >= *dialling_->due) dial(now);
  } else if (entries_.empty()) {  // no TCP connection yet
    const bool late = now - dialling_->started > options_.limits.handshake_timeout;
    if (!socket_->dial_failed() && !late) return;
    note_end(options_.endpoint,
             late ? "no answer" : "connection refused: does the coordinator run there?");
    dial_later(now);
  }
}

void StreamLink::dial(Clock::time_point now) {
  entries_.clear();
  socket_.reset();
  dialling_->due.reset();
  dialling_->started = now;
  auto socket = StreamSocket::dial(zmq_, endpoint_, options_.limits.idle);
  if (socket) {
    socket_ = *std::move(socket);
  } else {
    note_end(options_.endpoint, socket.error().message);
    dial_later(now);
  }
}

/// Full jitter: anywhere up to a bound that doubles with every failure.
void StreamLink::dial_later(Clock::time_point now) {
  auto bound = dialling_->min;
  for (int i = 0; i < dialling_->failures && bound < dialling_->max; ++i) bound *= 2;
  bound = std::min(bound, dialling_->max);
  ++dialling_->failures;
  const auto wait = milliseconds(std::int64_t(dialling_->jitter.uniform(0, double(bound.count()))));
  dialling_->due = now + wait;
  spdlog::info("dialling {} again in {}", options_.endpoint, in_seconds(wait));
}

void StreamLink::note_end(const std::string& who, const std::string& reason) {
  spdlog::warn("{} disconnected: {}", who, reason);
  ended_.push_back({who, reason});
  if (ended_.size() > kEndedKept) ended_.pop_front();
}

void StreamLink::count(Entry& entry, std::uint64_t sent, std::uint64_t received) {
  for (auto* traffic : {&total_, entry.peer.empty() ? &entry.before_open : &traffic_[entry.peer]}) {
    traffic->sent += sent;
    traffic->received += received;
  }
}

StreamLink::Entries::iterator StreamLink::find(const std::string& peer) {
  const auto id = ids_.find(peer);
  return id == ids_.end() ? entries_.end() : entries_.find(id->second);
}

}  // namespace preceptor::transport
