#include "transport/frame.h"

#include <gmock/gmock.h>

#include "common/random.h"
#include "tests/support/messages.h"

namespace preceptor::transport {
namespace {

using ::testing::HasSubstr;

/// All frames of `bytes`, fed in pieces of at most `piece` bytes; or the refusal.
Result<std::vector<Frame>> decode(std::span<const std::byte> bytes, std::size_t piece = SIZE_MAX) {
  FrameDecoder decoder;
  std::vector<Frame> frames;
  while (!bytes.empty()) {
    auto part = bytes.first(std::min(piece, bytes.size()));
    bytes = bytes.subspan(part.size());
    while (!part.empty())
      if (auto frame = TRY(decoder.next(part))) frames.push_back(*std::move(frame));
  }
  return frames;
}

std::string refusal_of(std::span<const std::byte> bytes) {
  const auto frames = decode(bytes);
  return frames ? "" : frames.error().message;
}

Bytes with_byte(std::size_t at, int value) {
  auto frame = encode_frame(Hello{}, 0);
  frame[at] = std::byte(value);
  return frame;
}

TEST(Frame, HasTheLayoutOfDocsWire) {
  const auto frame = encode_frame(FrameType::kMessage, 0x0102, bytes_of("abc"), true);
  EXPECT_EQ(hex(frame),
            "464c3100"
            "01"
            "01"
            "0001"
            "00000003"
            "0000000000000102"
            "0000000000000000"
            "616263");
}

TEST(Frame, ComesBackHoweverTheBytesAreCut) {
  Bytes stream;
  std::uint64_t sequence = 0;
  const auto messages = test::one_message_of_each_kind();
  for (const auto& message : messages) {
    for (const auto& bytes :
         {encode_frame(message, sequence), encode_frame(FrameType::kPing, sequence + 1)})
      stream.insert(stream.end(), bytes.begin(), bytes.end());
    sequence += 2;
  }
  for (const std::size_t piece : {1, 2, 27, 28, 29, 100, 1'000'000}) {
    const auto frames = decode(stream, piece);
    ASSERT_TRUE(frames) << frames.error().message;
    ASSERT_EQ(frames->size(), 2 * messages.size());
    for (std::size_t i = 0; i < messages.size(); ++i) {
      EXPECT_EQ((*frames)[2 * i].payload, encode_message(messages[i]));
      EXPECT_EQ((*frames)[2 * i + 1].type, FrameType::kPing);
    }
  }
}

TEST(Frame, IsRefusedForEachFieldOfItsHeader) {
  EXPECT_THAT(refusal_of(with_byte(0, 'G')), HasSubstr("magic"));
  EXPECT_THAT(refusal_of(with_byte(3, 1)), HasSubstr("magic"));
  EXPECT_THAT(refusal_of(with_byte(4, 2)), HasSubstr("frame version 2"));
  EXPECT_THAT(refusal_of(with_byte(5, 0)), HasSubstr("unknown type 0"));
  EXPECT_THAT(refusal_of(with_byte(5, 4)), HasSubstr("unknown type 4"));
  EXPECT_THAT(refusal_of(with_byte(19, 5)), HasSubstr("frame 5 instead of 0"));
  EXPECT_THAT(refusal_of(with_byte(27, 9)), HasSubstr("unknown stream 9"));
}

TEST(Frame, WithAnUnknownFlagIsRefusedOnlyWhenCritical) {
  EXPECT_EQ(refusal_of(with_byte(7, 0x40)), "");
  auto frame = with_byte(7, 0x40);
  frame[6] = std::byte{0x80};
  EXPECT_THAT(refusal_of(frame), HasSubstr("unknown critical flags"));
  frame[7] = std::byte{0};
  EXPECT_EQ(refusal_of(frame), "");
}

TEST(Frame, OverItsCapIsRefusedByItsHeaderAlone) {
  const auto header = [](FrameType type, std::uint32_t length, bool large) {
    auto bytes = encode_frame(type, 0, {}, large);
    for (int i = 0; i < 4; ++i) bytes[std::size_t(8 + i)] = std::byte(length >> (24 - 8 * i));
    return bytes;
  };
  EXPECT_EQ(refusal_of(header(FrameType::kMessage, kMaxControl, false)), "");
  EXPECT_THAT(refusal_of(header(FrameType::kMessage, kMaxControl + 1, false)),
              HasSubstr("at most 65536"));
  EXPECT_EQ(refusal_of(header(FrameType::kMessage, kMaxLarge, true)), "");
  EXPECT_THAT(refusal_of(header(FrameType::kMessage, kMaxLarge + 1, true)), HasSubstr("at most"));
  EXPECT_THAT(refusal_of(header(FrameType::kMessage, 0xffffffff, true)), HasSubstr("at most"));
  EXPECT_THAT(refusal_of(header(FrameType::kPing, 1, false)), HasSubstr("at most 0"));
  EXPECT_THAT(refusal_of(header(FrameType::kPong, 1, true)), HasSubstr("at most 0"));
}

TEST(Frame, SequenceGoesUpByExactlyOne) {
  for (const std::uint64_t second : {0, 2, 3}) {
    auto stream = encode_frame(FrameType::kPing, 0);
    const auto next = encode_frame(FrameType::kPing, second);
    stream.insert(stream.end(), next.begin(), next.end());
    EXPECT_THAT(refusal_of(stream), HasSubstr("instead of 1")) << second;
  }
}

TEST(Frame, TheLargestMessagesFit) {
  for (const Message& message : {Message(Welcome{.plan = std::string(kMaxText, 'x')}),
                                 Message(Chunk{{}, 0, Bytes(kChunkBytes)})}) {
    const auto frames = decode(encode_frame(message, 0), 16 << 10);
    ASSERT_TRUE(frames) << frames.error().message;
    const auto back = message_of(frames->at(0));
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->index(), message.index());
  }
}

TEST(Frame, OfChunksMayCarryNothingElse) {
  const auto frames =
      decode(encode_frame(FrameType::kMessage, 0, encode_message(Goodbye{"x"}), true));
  ASSERT_TRUE(frames);
  const auto message = message_of(frames->at(0));
  ASSERT_FALSE(message);
  EXPECT_THAT(message.error().message, HasSubstr("Goodbye in a frame for chunks"));
}

}  // namespace
}  // namespace preceptor::transport
