#pragma once
#include <array>
#include <optional>

#include "common/bytes.h"
#include "transport/messages.h"

namespace preceptor::transport {

/// A frame is a 28-byte header, big-endian, and a payload, inside TLS:
///   magic "FL1\0" · version u8 · type u8 · flags u16 · length u32 · sequence u64 · stream u64
/// Sequence counts from 0, exactly one up a frame and direction, so a frame lost, repeated or
/// reordered inside TLS (a bug, or a liar) ends the connection. Stream is 0 in this version.
enum class FrameType : std::uint8_t { kMessage = 1, kPing = 2, kPong = 3 };

inline constexpr std::size_t kFrameHeader = 28;
inline constexpr std::uint8_t kFrameVersion = 1;
/// With this bit set, a receiver that does not know every other bit must refuse the frame; without,
/// ignore them.
inline constexpr std::uint16_t kFlagCritical = 0x8000;
/// The payload is a Chunk, a Welcome or a SecureAggregation, the only messages that may be longer than kMaxControl.
inline constexpr std::uint16_t kFlagLarge = 0x0001;

inline constexpr std::size_t kMaxControl = 64 << 10;  ///< payload of an ordinary message
inline constexpr std::size_t kMaxLarge =
    kMaxText + 64;  ///< payload of a large one: a 1 MiB plan and its header
static_assert(kChunkBytes + 128 <= kMaxLarge);

struct Frame {
  FrameType type = FrameType::kMessage;
  bool large = false;
  Bytes payload;  ///< empty for ping and pong
};

Bytes encode_frame(FrameType type, std::uint64_t sequence, std::span<const std::byte> payload = {},
                   bool large = false);
/// A message in its frame; large when it is a Chunk or a Welcome.
Bytes encode_frame(const Message& message, std::uint64_t sequence);
/// The message of a kMessage frame. Error: kCorrupt, also for a large frame of a small kind.
Result<Message> message_of(const Frame& frame);

/// Takes one direction of a connection, cut anywhere, apart into frames. A header is judged as soon
/// as it is complete, before any of its payload is kept; memory is at most one payload that really
/// arrived.
class FrameDecoder {
 public:
  /// Eats from the front of `bytes` until a frame is complete; nothing when `bytes` ran out first.
  /// Call on until then. Error: kCorrupt, "frame 7 instead of 3"; the connection is then beyond
  /// repair.
  Result<std::optional<Frame>> next(std::span<const std::byte>& bytes);

 private:
  Result<void> judge_header();

  std::array<std::byte, kFrameHeader> header_{};
  std::size_t header_bytes_ = 0;  ///< of header_ that have arrived
  std::size_t length_ = 0;        ///< of the payload, from the header
  std::uint64_t sequence_ = 0;    ///< that the next header must have
  Frame frame_;
};

}  // namespace preceptor::transport
