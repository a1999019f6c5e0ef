#include "transport/stream_socket.h"

#include <poll.h>

#include <array>
#include <atomic>
#include <charconv>

namespace preceptor::transport {
namespace {

/// In pieces: 8 KiB when receiving, what the caller passed when sending.
constexpr int kReceivePieces = 64, kSendPieces = 8;
/// How an IPv6 socket writes an IPv4 peer.
constexpr std::string_view kMappedV4 = "::ffff:";

}  // namespace

Result<Endpoint> Endpoint::parse(const std::string& text) {
  const auto colon = text.rfind(':');
  Endpoint endpoint;
  if (colon != std::string::npos) {
    endpoint.host = text.substr(0, colon);
    if (endpoint.host.starts_with('[') && endpoint.host.ends_with(']'))
      endpoint.host = endpoint.host.substr(1, endpoint.host.size() - 2);
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, endpoint.port);
    if (error == std::errc() && stop == end && !endpoint.host.empty()) return endpoint;
  }
  return fail(Code::kInvalid, "endpoint '{}' is not host:port", text);
}

std::string Endpoint::zmq() const {
  const bool v6 = host.find(':') != std::string::npos;
  return fmt::format(fmt::runtime(v6 ? "tcp://[{}]:{}" : "tcp://{}:{}"), host, port);
}

StreamSocket::StreamSocket(zmq::context_t& context, std::chrono::milliseconds stuck)
    : socket_(context, zmq::socket_type::stream) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.set(zmq::sockopt::ipv6, true);
  socket_.set(zmq::sockopt::rcvhwm, kReceivePieces);
  socket_.set(zmq::sockopt::sndhwm, kSendPieces);
  socket_.set(zmq::sockopt::tcp_maxrt, int(stuck.count()));
  socket_.set(zmq::sockopt::reconnect_ivl, -1);
}

Result<StreamSocket> StreamSocket::listen(zmq::context_t& context, const Endpoint& at,
                                          std::chrono::milliseconds stuck) {
  try {
    StreamSocket made(context, stuck);
    made.socket_.bind(at.zmq());
    return made;
  } catch (const zmq::error_t& error) {
    return fail(Code::kIo, "cannot listen on {}: {}", at.zmq(), error.what());
  }
}

Result<StreamSocket> StreamSocket::dial(zmq::context_t& context, const Endpoint& to,
                                        std::chrono::milliseconds stuck) {
  static std::atomic<unsigned> count = 0;
  try {
    StreamSocket made(context, stuck);
    const auto monitor = fmt::format("inproc://monitor-{}", ++count);
    if (zmq_socket_monitor(made.socket_.handle(), monitor.c_str(), ZMQ_EVENT_CLOSED) != 0)
      throw zmq::error_t();
    made.monitor_ = zmq::socket_t(context, zmq::socket_type::pair);
    made.monitor_.set(zmq::sockopt::linger, 0);
    made.monitor_.connect(monitor);
    made.socket_.connect(to.zmq());
    return made;
  } catch (const zmq::error_t& error) {
    return fail(Code::kIo, "cannot dial {}: {}", to.zmq(), error.what());
  }
}

std::optional<StreamSocket::Arrival> StreamSocket::receive() {
  zmq::message_t id, data;
  if (!socket_.recv(id, zmq::recv_flags::dontwait)) return std::nullopt;
  if (!socket_.recv(data, zmq::recv_flags::dontwait)) return std::nullopt;
  const char* address = zmq_msg_gets(data.handle(), "Peer-Address");
  const auto* first = data.data<std::byte>();
  return Arrival{id.to_string(), address ? address : "unknown address",
                 Bytes(first, first + data.size())};
}

StreamSocket::Sent StreamSocket::send_frames(const std::string& id,
                                             std::span<const std::byte> bytes) {
  if (zmq_send(socket_.handle(), id.data(), id.size(), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0)
    return zmq_errno() == EAGAIN ? Sent::kFull : Sent::kGone;
  zmq_send(socket_.handle(), bytes.data(), bytes.size(),
           ZMQ_DONTWAIT);  // taken whenever the id frame was
  return Sent::kYes;
}

StreamSocket::Sent StreamSocket::send(const std::string& id, std::span<const std::byte> bytes) {
  if (bytes.empty()) throw std::logic_error("an empty piece would close the connection");
  return send_frames(id, bytes);
}

StreamSocket::Sent StreamSocket::close(const std::string& id) { return send_frames(id, {}); }

void StreamSocket::wait(std::chrono::milliseconds at_most) {
  // Not zmq_poll: it goes on sleeping when a full connection gets room. The descriptor is
  // edge-triggered, so what is there already must be asked for first.
  if (socket_.get(zmq::sockopt::events) & ZMQ_POLLIN) return;
  std::array<pollfd, 2> wanted{};
  wanted[0] = {socket_.get(zmq::sockopt::fd), POLLIN, 0};
  if (monitor_) {
    if (monitor_.get(zmq::sockopt::events) & ZMQ_POLLIN) return;
    wanted[1] = {monitor_.get(zmq::sockopt::fd), POLLIN, 0};
  }
  ::poll(wanted.data(), monitor_ ? 2 : 1, int(std::max<std::int64_t>(0, at_most.count())));
}

bool StreamSocket::dial_failed() {
  zmq::message_t event;
  bool failed = false;
  while (monitor_ && monitor_.recv(event, zmq::recv_flags::dontwait)) failed = true;
  return failed;
}

std::uint16_t StreamSocket::port() const {
  const auto endpoint = socket_.get(zmq::sockopt::last_endpoint);
  const auto parsed = Endpoint::parse(endpoint.substr(std::string_view("tcp://").size()));
  return parsed ? parsed->port : 0;
}

void StreamSocket::linger(std::chrono::milliseconds time) {
  socket_.set(zmq::sockopt::linger, int(time.count()));
}

}  // namespace preceptor::transport
