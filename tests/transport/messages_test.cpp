#include "transport/messages.h"

#include <gmock/gmock.h>

#include <limits>

#include "tests/support/messages.h"
#include "transport/archive.h"

namespace preceptor::transport {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kEnvelope = 3;  // minor version u16, type u8

std::string refusal_of(std::span<const std::byte> bytes) {
  const auto message = decode_message(bytes);
  return message ? "" : message.error().message;
}

struct Nested {
  std::vector<Nested> inside;
  template <class A>
  void serialize(A& a) {
    a(capped(inside, 4));
  }
};

static_assert(cereal::traits::is_input_serializable<Digest, ArchiveReader>::value);
static_assert(!cereal::traits::is_input_serializable<std::unique_ptr<int>, ArchiveReader>::value);
static_assert(!cereal::traits::is_input_serializable<std::string, ArchiveReader>::value,
              "texts need a cap");

TEST(Messages, ComeBackAsTheyWere) {
  for (const auto& message : test::one_message_of_each_kind()) {
    const auto bytes = encode_message(message);
    const auto back = decode_message(bytes);
    ASSERT_TRUE(back) << message_name(message) << ": " << back.error().message;
    EXPECT_EQ(back->index(), message.index());
    EXPECT_EQ(encode_message(*back), bytes) << message_name(message);
  }
}

TEST(Messages, HaveTheLayoutOfDocsWire) {
  EXPECT_EQ(hex(encode_message(Fetch{Digest{std::byte{0xab}}, 0x0102, 0x10000})),
            "040004ab" + std::string(62, '0') + "0201000000000000" + "00000100");
}

TEST(Messages, ShortOrLongByOneByteAreRefused) {
  for (const auto& message : test::one_message_of_each_kind()) {
    auto bytes = encode_message(message);
    for (std::size_t size = 0; size < bytes.size(); ++size)
      EXPECT_FALSE(decode_message(std::span(bytes).first(size)))
          << message_name(message) << " cut at " << size;
    bytes.push_back(std::byte{0});
    EXPECT_EQ(refusal_of(bytes), std::string(message_name(message)) + ": 1 bytes too many");
  }
}

TEST(Messages, NameWhatIsShort) {
  const auto bytes = encode_message(UpdateOffer{});
  EXPECT_EQ(refusal_of(std::span(bytes).first(bytes.size() - 8)), "UpdateOffer: short by 8 bytes");
}

TEST(Messages, OfAnotherVersionOrKindAreRefused) {
  auto bytes = encode_message(Hello{});
  bytes[0] = std::byte{kProtocolMinor + 1};
  EXPECT_THAT(refusal_of(bytes), HasSubstr("fl/1.4"));
  bytes = encode_message(Hello{});
  for (const int type : {0, 14, 255}) {
    bytes[2] = std::byte(type);
    EXPECT_THAT(refusal_of(bytes), HasSubstr("unknown type")) << type;
  }
}

TEST(Messages, ASizeBeyondTheBytesOrTheCapTakesNoMemory) {
  auto bytes = encode_message(Welcome{});
  const auto with_plan_size = [&](std::uint64_t size) {
    std::memcpy(bytes.data() + kEnvelope + sizeof(std::uint16_t), &size, sizeof size);
    return refusal_of(bytes);
  };
  EXPECT_THAT(with_plan_size(kMaxText), HasSubstr("short by"));
  EXPECT_THAT(with_plan_size(kMaxText + 1), HasSubstr("at most"));
  EXPECT_THAT(with_plan_size(std::uint64_t{1} << 63), HasSubstr("at most"));
}

TEST(Messages, AreCappedPerField) {
  EXPECT_THROW(encode_message(Chunk{{}, 0, Bytes(kChunkBytes + 1)}), std::logic_error);
  EXPECT_THROW(encode_message(Fetch{{}, 0, kChunkBytes + 1}), std::exception);
  auto fetch = encode_message(Fetch{{}, 0, kChunkBytes});
  EXPECT_TRUE(decode_message(fetch));
  fetch[fetch.size() - 4] |= std::byte{1};  // length, little-endian: one more
  EXPECT_THAT(refusal_of(fetch), HasSubstr("Fetch: asks for"));
  EXPECT_TRUE(decode_message(encode_message(Welcome{.plan = std::string(kMaxText, 'x')})));
}

TEST(Messages, ALongReasonIsCutWhenSent) {
  const auto back = decode_message(encode_message(Goodbye{std::string(100'000, 'x')}));
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<Goodbye>(*back).reason.size(), kMaxReason);
}

TEST(Messages, NumbersMustBeFinite) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(refusal_of(encode_message(UpdateOffer{.train_loss = bad})),
              "UpdateOffer: a number that is not finite");
    SiteReport report;
    report.global_auc.high = bad;
    EXPECT_EQ(refusal_of(encode_message(report)), "SiteReport: a number that is not finite");
  }
}

TEST(Messages, AYesOrNoIsOneOrZero) {
  auto bytes = encode_message(SiteReport{});
  bytes[kEnvelope + 3 * sizeof(std::uint64_t)] = std::byte{2};
  EXPECT_THAT(refusal_of(bytes), HasSubstr("yes-or-no"));
}

TEST(Archive, RefusesAMillionNestings) {
  Bytes bytes;
  for (int i = 0; i < 1'000'000; ++i) ByteWriter(bytes).put(std::uint64_t{1});
  ArchiveReader reader(bytes);
  Nested nested;
  EXPECT_THROW(reader(nested), cereal::Exception);
}

TEST(Archive, ReadsNestedLists) {
  const Nested written{{{}, Nested{{{}, {}}}}};
  Bytes bytes;
  ArchiveWriter writer(bytes);
  writer(written);
  ArchiveReader reader(bytes);
  Nested read;
  reader(read);
  reader.finish();
  ASSERT_EQ(read.inside.size(), 2u);
  EXPECT_EQ(read.inside[1].inside.size(), 2u);
}

}  // namespace
}  // namespace preceptor::transport
