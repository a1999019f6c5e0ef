#include "transport/stream_socket.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/support/tcp.h"

namespace preceptor::transport {
namespace {

using std::chrono::milliseconds;
using Sent = StreamSocket::Sent;

class Stream : public ::testing::Test {
 protected:
  std::optional<StreamSocket::Arrival> arrival() {
    for (int i = 0; i < 200; ++i) {
      if (auto arrived = socket_.receive()) return arrived;
      socket_.wait(milliseconds(50));
    }
    return std::nullopt;
  }
  /// The id that the next connection gets.
  std::string accepted() {
    const auto began = arrival();
    EXPECT_TRUE(began && began->bytes.empty());
    return began ? began->id : "";
  }
  static std::string text_of(test::Tcp& client, std::size_t size) {
    Bytes all;
    for (int i = 0; i < 2000 && all.size() < size; ++i) {
      const auto bytes = client.receive();
      all.insert(all.end(), bytes.begin(), bytes.end());
      if (bytes.empty()) ::usleep(1000);
    }
    return {reinterpret_cast<const char*>(all.data()), all.size()};
  }
  /// Until the socket takes no more; the client reads nothing.
  int fill(const std::string& id) {
    const Bytes piece(64 << 10);
    for (int sent = 0; sent < 10'000; ++sent) {
      // The kernel's buffers take a while to fill by the socket's thread: full twice means full.
      if (socket_.send(id, piece) == Sent::kFull) {
        ::usleep(20'000);
        if (socket_.send(id, piece) == Sent::kFull) return sent;
      }
    }
    return -1;
  }

  zmq::context_t context_;
  StreamSocket socket_ = *StreamSocket::listen(context_, {"127.0.0.1", 0}, milliseconds(60'000));
};

TEST_F(Stream, SendNeverWaitsForAPeerThatDoesNotRead) {
  test::Tcp client(socket_.port());
  const auto id = accepted();
  EXPECT_GE(fill(id), 0) << "sends were taken without end";
  EXPECT_EQ(socket_.close(id), Sent::kFull) << "even closing must be tried later";
  client.close();
  const auto gone = arrival();
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->id, id);
  auto after = Sent::kFull;
  for (int i = 0; i < 200 && after == Sent::kFull; ++i) {
    socket_.wait(milliseconds(10));
    after = socket_.send(id, bytes_of("x"));
  }
  EXPECT_EQ(after, Sent::kGone);
}

TEST_F(Stream, AFailedSendLeavesTheOthersInStep) {
  test::Tcp stuck(socket_.port());
  const auto stuck_id = accepted();
  ASSERT_GE(fill(stuck_id), 0);
  test::Tcp good(socket_.port());
  const auto good_id = accepted();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(socket_.send("no such id", bytes_of("lost")), Sent::kGone);
    EXPECT_EQ(socket_.send(stuck_id, bytes_of("lost")), Sent::kFull);
    EXPECT_EQ(socket_.send(good_id, bytes_of("kept")), Sent::kYes);
  }
  EXPECT_EQ(text_of(good, 12), "keptkeptkept");
}

TEST_F(Stream, ACloseAndThePeersOwnCloseMayCross) {
  std::set<std::string> seen;
  for (int i = 0; i < 100; ++i) {
    test::Tcp client(socket_.port());
    auto began = arrival();
    while (began && seen.contains(began->id)) began = arrival();  // late, of those before
    ASSERT_TRUE(began && began->bytes.empty());
    seen.insert(began->id);
    client.send(bytes_of("late bytes"));
    client.close();
    if (i % 2) socket_.wait(milliseconds(1));
    socket_.close(began->id);
    while (const auto late = socket_.receive())
      EXPECT_TRUE(seen.contains(late->id)) << "looks like a new connection";
  }
  test::Tcp good(socket_.port());
  while (const auto next = arrival())
    if (next->bytes.empty() && socket_.send(next->id, bytes_of("kept")) == Sent::kYes) break;
  EXPECT_EQ(text_of(good, 4), "kept");
}

TEST_F(Stream, AnEmptyPieceIsABug) { EXPECT_THROW(socket_.send("x", {}), std::logic_error); }

TEST_F(Stream, AFailedDialIsNoticedSoon) {
  std::uint16_t free_port = 0;
  {
    zmq::context_t passing;  // whose end waits until the port is really closed
    const auto other = StreamSocket::listen(passing, {"127.0.0.1", 0}, milliseconds(1000));
    free_port = other->port();
  }
  auto dialled = StreamSocket::dial(context_, {"127.0.0.1", free_port}, milliseconds(1000));
  ASSERT_TRUE(dialled);
  bool failed = false;
  for (int i = 0; i < 100 && !failed; ++i) {
    dialled->wait(milliseconds(100));
    failed = dialled->dial_failed();
  }
  EXPECT_TRUE(failed);
}

TEST_F(Stream, TwoCannotListenOnOnePort) {
  const auto second =
      StreamSocket::listen(context_, {"127.0.0.1", socket_.port()}, milliseconds(1000));
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, ::testing::HasSubstr("cannot listen on tcp://127.0.0.1"));
}

TEST(EndpointText, IsHostAndPort) {
  EXPECT_EQ(Endpoint::parse("hub.example.org:7443")->zmq(), "tcp://hub.example.org:7443");
  EXPECT_EQ(Endpoint::parse("[::1]:7443")->host, "::1");
  EXPECT_EQ(Endpoint::parse("[::1]:7443")->zmq(), "tcp://[::1]:7443");
  for (const char* bad : {"", "hub", ":7443", "hub:", "hub:x", "hub:7443x", "hub:65536", "hub:-1"})
    EXPECT_FALSE(Endpoint::parse(bad)) << bad;
}

}  // namespace
}  // namespace preceptor::transport
