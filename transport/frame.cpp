#include "transport/frame.h"

#include <algorithm>

namespace preceptor::transport {
namespace {

constexpr std::array kMagic{std::byte{'F'}, std::byte{'L'}, std::byte{'1'}, std::byte{0}};

/// Offsets of the header's fields; see frame.h.
enum Field : std::size_t {
  kVersion = 4,
  kType = 5,
  kFlags = 6,
  kLength = 8,
  kSequence = 12,
  kStream = 20
};

template <class T>
T load_big(std::span<const std::byte> header, Field at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) value = T(value << 8 | T(header[at + i]));
  return value;
}
template <class T>
void store_big(std::span<std::byte> header, Field at, T value) {
  for (std::size_t i = sizeof(T); i-- > 0; value = T(std::uint64_t(value) >> 8))
    header[at + i] = std::byte(value);
}

bool is_large(const Message& message) {
  return std::holds_alternative<Chunk>(message) || std::holds_alternative<Welcome>(message) ||
         std::holds_alternative<SecureAggregation>(message);
}

}  // namespace

Bytes encode_frame(FrameType type, std::uint64_t sequence, std::span<const std::byte> payload,
                   bool large) {
  Bytes out(kFrameHeader + payload.size());
  std::ranges::copy(kMagic, out.begin());
  store_big(out, kVersion, kFrameVersion);
  store_big(out, kType, std::uint8_t(type));
  store_big(out, kFlags, std::uint16_t(large ? kFlagLarge : 0));
  store_big(out, kLength, std::uint32_t(payload.size()));
  store_big(out, kSequence, sequence);
  std::ranges::copy(payload, out.begin() + kFrameHeader);
  return out;
}

Bytes encode_frame(const Message& message, std::uint64_t sequence) {
  return encode_frame(FrameType::kMessage, sequence, encode_message(message), is_large(message));
}

Result<Message> message_of(const Frame& frame) {
  auto message = TRY(decode_message(frame.payload));
  if (frame.large && !is_large(message))
    return fail(Code::kCorrupt, "{} in a frame for chunks, plans and secure aggregation", message_name(message));
  return message;
}

Result<void> FrameDecoder::judge_header() {
  if (!std::ranges::equal(std::span(header_).first(kMagic.size()), kMagic))
    return fail(Code::kCorrupt, "not a frame: wrong magic");
  if (const auto version = load_big<std::uint8_t>(header_, kVersion); version != kFrameVersion)
    return fail(Code::kCorrupt, "frame version {}; this program knows {}", version, kFrameVersion);
  const auto type = load_big<std::uint8_t>(header_, kType);
  if (type < std::uint8_t(FrameType::kMessage) || type > std::uint8_t(FrameType::kPong))
    return fail(Code::kCorrupt, "frame of unknown type {}", type);
  const auto flags = load_big<std::uint16_t>(header_, kFlags);
  if ((flags & kFlagCritical) && (flags & ~(kFlagCritical | kFlagLarge)))
    return fail(Code::kCorrupt,
                "frame with unknown critical flags {:#06x}: the peer's program is newer", flags);
  frame_.type = FrameType(type);
  frame_.large = frame_.type == FrameType::kMessage && (flags & kFlagLarge);
  length_ = load_big<std::uint32_t>(header_, kLength);
  const auto cap = frame_.type != FrameType::kMessage ? 0 : frame_.large ? kMaxLarge : kMaxControl;
  if (length_ > cap)
    return fail(Code::kCorrupt, "frame of {} bytes; at most {} for its kind", length_, cap);
  if (const auto sequence = load_big<std::uint64_t>(header_, kSequence); sequence != sequence_)
    return fail(Code::kCorrupt, "frame {} instead of {}", sequence, sequence_);
  if (const auto stream = load_big<std::uint64_t>(header_, kStream); stream != 0)
    return fail(Code::kCorrupt, "frame of unknown stream {}", stream);
  return {};
}

Result<std::optional<Frame>> FrameDecoder::next(std::span<const std::byte>& bytes) {
  if (header_bytes_ < kFrameHeader) {
    const auto part = bytes.first(std::min(bytes.size(), kFrameHeader - header_bytes_));
    std::ranges::copy(part, header_.begin() + std::ptrdiff_t(header_bytes_));
    header_bytes_ += part.size();
    bytes = bytes.subspan(part.size());
    if (header_bytes_ < kFrameHeader) return std::nullopt;
    TRY(judge_header());
  }
  auto& payload = frame_.payload;
  const auto part = bytes.first(std::min(bytes.size(), length_ - payload.size()));
  payload.insert(payload.end(), part.begin(), part.end());
  bytes = bytes.subspan(part.size());
  if (payload.size() < length_) return std::nullopt;
  header_bytes_ = 0;
  ++sequence_;
  return std::exchange(frame_, Frame{});
}

}  // namespace preceptor::transport
