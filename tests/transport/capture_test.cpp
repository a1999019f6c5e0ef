// What crosses the wire, seen by a relay in the middle: TLS 1.3 and nothing else.
#include "tests/transport/link_fixture.h"

namespace preceptor::transport {
namespace {

constexpr std::uint8_t kChangeCipherSpec = 20, kHandshake = 22, kApplicationData = 23;
constexpr std::uint16_t kSupportedVersions = 43;
constexpr const char* kMarker = "a sentence that must never cross the wire in the clear";

struct Record {
  std::uint8_t type = 0;
  std::span<const std::byte> body;
};

/// Big-endian reads that fail the test instead of running over.
class Cursor {
 public:
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  std::span<const std::byte> take(std::size_t count) {
    if (count > left()) throw std::runtime_error("record shorter than it says");
    const auto head = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return head;
  }
  std::size_t number(std::size_t width) {
    std::size_t value = 0;
    for (const auto b : take(width)) value = value << 8 | std::size_t(b);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
};

std::vector<Record> records_of(std::span<const std::byte> bytes) {
  std::vector<Record> all;
  for (Cursor cursor(bytes); cursor.left() > 0;) {
    const auto type = std::uint8_t(cursor.number(1));
    const auto version = cursor.number(2);
    EXPECT_TRUE(version == 0x0301 || version == 0x0303)
        << version;  // frozen legacy fields (RFC 8446, 5.1)
    all.push_back({type, cursor.take(cursor.number(2))});
  }
  return all;
}

/// Body of an extension of a ClientHello (1) or ServerHello (2).
std::span<const std::byte> extension_of(std::span<const std::byte> hello, std::uint16_t wanted) {
  Cursor cursor(hello);
  const bool client = cursor.number(1) == 1;
  cursor.number(3);               // length
  cursor.take(2 + 32);            // legacy version, random
  cursor.take(cursor.number(1));  // session id
  if (client) {
    cursor.take(cursor.number(2));  // cipher suites
    cursor.take(cursor.number(1));  // compression methods
  } else {
    cursor.take(2 + 1);
  }
  for (Cursor extensions(cursor.take(cursor.number(2))); extensions.left() > 0;) {
    const auto type = extensions.number(2);
    const auto body = extensions.take(extensions.number(2));
    if (type == wanted) return body;
  }
  return {};
}

bool contains(std::span<const std::byte> bytes, std::string_view text) {
  return !std::ranges::search(bytes, bytes_of(text)).empty();
}

class Capture : public LinkTest {};

TEST_F(Capture, HoldsTls13RecordsOnly) {
  auto hub = listen();
  test::TcpRelay relay(hub.link->port());
  auto node = connect(relay.port(), "node-1");
  const auto turns = [&] { hub.turn(), relay.turn(), node.turn(); };
  ASSERT_TRUE(
      until([&] { return hub.connected("node-1") && node.connected("coordinator"); }, turns));
  hub.link->send("node-1", Welcome{.plan = kMarker});
  node.link->send("coordinator",
                  Chunk{{}, 0, Bytes(bytes_of(kMarker).begin(), bytes_of(kMarker).end())});
  ASSERT_TRUE(until(
      [&] { return hub.messages("node-1").size() + node.messages("coordinator").size() == 2; },
      turns));
  hub.link->disconnect("node-1", "over");
  ASSERT_TRUE(until([&] { return hub.link->connections() == 0; }, turns));

  const auto from_node = records_of(relay.from_node), from_hub = records_of(relay.from_coordinator);
  ASSERT_GT(from_node.size(), 3u);
  ASSERT_GT(from_hub.size(), 3u);
  EXPECT_EQ(from_node[0].type, kHandshake);
  EXPECT_EQ(hex(extension_of(from_node[0].body, kSupportedVersions)), "020304")
      << "the node offers 1.3 and no other";
  EXPECT_EQ(from_hub[0].type, kHandshake);
  EXPECT_EQ(hex(extension_of(from_hub[0].body, kSupportedVersions)), "0304")
      << "the coordinator chose 1.3";
  for (const auto& records : {from_node, from_hub})
    for (std::size_t i = 1; i < records.size(); ++i)
      EXPECT_TRUE(records[i].type == kApplicationData || records[i].type == kChangeCipherSpec)
          << "record " << i << " of type " << int(records[i].type);
  for (const auto* bytes : {&relay.from_node, &relay.from_coordinator}) {
    EXPECT_FALSE(contains(*bytes, kMarker));
    EXPECT_FALSE(contains(*bytes, "urn:fl:node:")) << "certificates are encrypted in TLS 1.3";
  }
  EXPECT_TRUE(contains(encode_message(Welcome{.plan = kMarker}), kMarker))
      << "the search can find it";
  EXPECT_EQ(relay.from_node.size(), hub.link->traffic("node-1").received)
      << "traffic is what crossed the socket";
  EXPECT_EQ(relay.from_coordinator.size(), hub.link->traffic("node-1").sent);
}

}  // namespace
}  // namespace preceptor::transport
