#include "transport/connection.h"

namespace preceptor::transport {
namespace {

constexpr std::size_t kPlaintext = 16 << 10;  ///< the largest TLS record
constexpr std::size_t kSmallQueue = 64 << 10;

}  // namespace

std::string in_seconds(std::chrono::milliseconds time) {
  return fmt::format("{} s", double(time.count()) / 1000);
}

Connection::Connection(const TlsContext& context, const std::string& host,
                       const ConnectionLimits& limits, Clock::time_point now)
    : server_(context.side() == TlsSide::kServer),
      limits_(limits),
      tls_(context, host),
      began_(now),
      last_received_(now),
      last_sent_(now),
      last_taken_(now) {
  if (server_) return;
  (void)tls_.handshake();  // the first flight; it cannot fail before an answer
  collect_output(now);
}

Result<void> Connection::receive(std::span<const std::byte> bytes, Clock::time_point now,
                                 std::vector<Message>& messages) {
  last_received_ = now;
  tls_.receive(bytes);
  const auto read = [&]() -> Result<void> {
    if (!shaken_) {
      handshake_bytes_ += std::int64_t(bytes.size());
      if (handshake_bytes_ > limits_.max_handshake_bytes)
        return fail(Code::kRefused, "over {} bytes before authentication",
                    limits_.max_handshake_bytes);
      shaken_ = TRY(tls_.handshake());
      if (!shaken_) return {};
      open_ = server_;
      TRY(tls_.write(encode_frame(FrameType::kPing, next_sequence_++)));
    }
    return read_frames(messages, now);
  };
  auto result = read();
  collect_output(now);
  return result;
}

Result<void> Connection::read_frames(std::vector<Message>& messages, Clock::time_point now) {
  std::array<std::byte, kPlaintext> plaintext;
  for (;;) {
    const auto size = TRY(tls_.read(plaintext));
    if (size == 0) return {};
    auto part = std::span<const std::byte>(plaintext).first(size);
    while (!part.empty()) {
      auto frame = TRY(decoder_.next(part));
      if (frame) TRY(handle(*std::move(frame), messages, now));
    }
  }
}

Result<void> Connection::handle(Frame frame, std::vector<Message>& messages,
                                Clock::time_point now) {
  open_ = true;
  if (frame.type == FrameType::kPing)
    return queue_frame(encode_frame(FrameType::kPong, next_sequence_++), now);
  if (frame.type == FrameType::kMessage) messages.push_back(TRY(message_of(frame)));
  return {};
}

Result<void> Connection::send(const Message& message, Clock::time_point now) {
  return queue_frame(encode_frame(message, next_sequence_++), now);
}

Result<void> Connection::queue_frame(const Bytes& frame, Clock::time_point now) {
  const auto waiting = output().size() + frame.size();
  if (waiting > std::size_t(limits_.max_queue))
    return fail(Code::kUnavailable, "takes too slowly: {} bytes wait", waiting);
  TRY(tls_.write(frame));
  collect_output(now);
  return {};
}

void Connection::collect_output(Clock::time_point now) {
  const auto ciphertext = tls_.take_output();
  if (ciphertext.empty()) return;
  if (output().empty()) last_taken_ = now;
  if (queue_start_ > queue_.size() / 2) {
    queue_.erase(queue_.begin(), queue_.begin() + std::ptrdiff_t(queue_start_));
    queue_start_ = 0;
  }
  queue_.insert(queue_.end(), ciphertext.begin(), ciphertext.end());
  last_sent_ = now;
}

void Connection::took(std::size_t bytes, Clock::time_point now) {
  queue_start_ += bytes;
  last_taken_ = now;
  if (output().empty()) forget_output();
}

void Connection::forget_output() {
  if (queue_.capacity() > kSmallQueue) Bytes().swap(queue_);
  queue_.clear();
  queue_start_ = 0;
}

Result<void> Connection::check_time(Clock::time_point now) {
  if (!open_ && now - began_ > limits_.handshake_timeout)
    return fail(Code::kUnavailable, "no handshake within {}",
                in_seconds(limits_.handshake_timeout));
  if (now - last_received_ > limits_.idle)
    return fail(Code::kUnavailable, "idle for {}", in_seconds(limits_.idle));
  if (!output().empty() && now - last_taken_ > limits_.idle)
    return fail(Code::kUnavailable, "takes nothing for {}", in_seconds(limits_.idle));
  if (open_ && now - last_sent_ > limits_.heartbeat)
    return queue_frame(encode_frame(FrameType::kPing, next_sequence_++), now);
  return {};
}

void Connection::say_close() {
  tls_.close();
  collect_output(began_);
}

}  // namespace preceptor::transport
