#include "transport/stream_link.h"

#include <atomic>
#include <thread>

#include "tests/support/messages.h"
#include "tests/transport/link_fixture.h"

namespace preceptor::transport {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

Chunk chunk(std::uint64_t number) {
  Chunk made{.blob = sha256("blob"), .offset = number * kChunkBytes, .bytes = Bytes(kChunkBytes)};
  RandomStream random(number, "chunk");
  for (auto& b : made.bytes) b = std::byte(random.bits32());
  return made;
}

class StreamLinks : public LinkTest {};

TEST_F(StreamLinks, CarryEveryMessageBothWays) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  const auto both = [&] { hub.turn(), node.turn(); };
  ASSERT_TRUE(
      until([&] { return hub.connected("node-1") && node.connected("coordinator"); }, both));
  const auto sent = test::one_message_of_each_kind();
  for (const auto& message : sent) {
    hub.link->send("node-1", message);
    node.link->send("coordinator", message);
  }
  hub.link->send("node-9", sent[0]);  // nobody: dropped
  ASSERT_TRUE(until(
      [&] {
        return hub.messages("node-1").size() + node.messages("coordinator").size() ==
               2 * sent.size();
      },
      both));
  for (const auto& received : {hub.messages("node-1"), node.messages("coordinator")})
    for (std::size_t i = 0; i < sent.size(); ++i)
      EXPECT_EQ(encode_message(received[i]), encode_message(sent[i]));
}

TEST_F(StreamLinks, CarryManyChunksAndCountEveryByte) {
  constexpr std::uint64_t kChunks = 40;
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  const auto both = [&] { hub.turn(), node.turn(); };
  ASSERT_TRUE(
      until([&] { return hub.connected("node-1") && node.connected("coordinator"); }, both));
  // As a transfer does it: the asker sets the pace.
  const auto answer = [](End& end, const std::string& peer, std::size_t& seen,
                         std::vector<Digest>& got) {
    for (; seen < end.events.size(); ++seen) {
      auto* message = std::get_if<Message>(&end.events[seen].what);
      if (!message) continue;
      if (const auto* fetch = std::get_if<Fetch>(message))
        end.link->send(peer, chunk(fetch->offset / kChunkBytes));
      if (const auto* piece = std::get_if<Chunk>(message)) {
        got.push_back(sha256(piece->bytes));
        if (got.size() < kChunks)
          end.link->send(peer, Fetch{{}, got.size() * kChunkBytes, kChunkBytes});
        *message = Goodbye{};  // frees the chunk
      }
    }
  };
  std::size_t hub_seen = 0, node_seen = 0;
  std::vector<Digest> hub_got, node_got;
  hub.link->send("node-1", Fetch{{}, 0, kChunkBytes});
  node.link->send("coordinator", Fetch{{}, 0, kChunkBytes});
  ASSERT_TRUE(until([&] { return hub_got.size() == kChunks && node_got.size() == kChunks; },
                    [&] {
                      both();
                      answer(hub, "node-1", hub_seen, hub_got);
                      answer(node, "coordinator", node_seen, node_got);
                    }));
  for (std::uint64_t i = 0; i < kChunks; ++i) {
    EXPECT_EQ(hub_got[i], sha256(chunk(i).bytes));
    EXPECT_EQ(node_got[i], sha256(chunk(i).bytes));
  }
  const auto at_hub = hub.link->traffic("node-1"), at_node = node.link->traffic("coordinator");
  EXPECT_EQ(at_hub.received, at_node.sent);
  EXPECT_EQ(at_hub.sent, at_node.received);
  EXPECT_EQ(hub.link->traffic().sent, at_hub.sent);
  EXPECT_EQ(hub.link->traffic().received, at_hub.received);
  EXPECT_GT(at_hub.sent, kChunks * kChunkBytes);
  EXPECT_LT(double(at_hub.sent), 1.01 * kChunks * kChunkBytes)
      << "records and frames cost under a hundredth";
  EXPECT_EQ(hub.link->traffic("node-9").sent, 0u);
}

TEST_F(StreamLinks, WorkFromTwoThreads) {
  auto hub = listen();
  const auto port = hub.link->port();
  const auto files = consortium_.node("node-1");
  std::atomic<bool> stop = false;
  std::thread thread([&] {
    auto node = connect(node_options(port, files));
    while (!stop)
      if (const auto event = node.link->poll(milliseconds(5)))
        if (const auto* message = std::get_if<Message>(&event->what))
          node.link->send("coordinator", *message);
  });
  std::size_t sent = 0;
  const bool done = until([&] { return hub.messages("node-1").size() == 50; },
                          [&] {
                            hub.turn();
                            if (hub.connected("node-1") && sent < 50)
                              hub.link->send("node-1", chunk(sent++ % 3));
                          });
  stop = true;
  thread.join();
  EXPECT_TRUE(done);
}

TEST_F(StreamLinks, RefuseEachBadCertificateWithItsReason) {
  test::Consortium stranger;
  auto foreign = stranger.node("node-1");
  const auto ours = consortium_.node("node-1");
  foreign.ca = ours.ca, foreign.crl = ours.crl;  // the stranger trusts us
  const auto revoked = consortium_.node("revoked");
  consortium_.revoke("revoked");
  auto hub = listen();  // reads the revocation list as it stands now
  const std::pair<TlsFiles, const char*> cases[] = {
      {foreign, "foreign CA"},
      {consortium_.node_of_another_time("late", -48, -24), "certificate expired"},
      {consortium_.node_of_another_time("early", 24, 48), "certificate not yet valid"},
      {revoked, "certificate revoked"},
      {consortium_.issue({"other", CertificateRole::kCoordinator, {"localhost"}, 30, {}}),
       "server certificate used as client"},
  };
  for (const auto& [files, reason] : cases) {
    // A node dials again at once, so others' endings may lie between.
    const auto found = [&] {
      return std::ranges::find_if(hub.link->ended(),
                                  [&](const auto& end) { return end.reason.starts_with(reason); });
    };
    auto node = connect(node_options(hub.link->port(), files));
    ASSERT_TRUE(
        until([&] { return found() != hub.link->ended().end() && !node.link->ended().empty(); },
              [&] { hub.turn(), node.turn(); }))
        << reason;
    EXPECT_THAT(found()->who, HasSubstr("127.0.0.1")) << "no name was proven";
    EXPECT_THAT(node.link->ended().front().reason, HasSubstr("peer refused us: ")) << reason;
    EXPECT_TRUE(hub.events.empty()) << reason;
    EXPECT_TRUE(node.events.empty()) << reason;
  }
}

TEST_F(StreamLinks, TwoHundredRefusalsLaterAGoodNodeIsServed) {
  const auto revoked = consortium_.node("revoked");
  consortium_.revoke("revoked");
  auto hub = listen();  // reads the revocation list as it stands now
  for (int i = 0; i < 200; ++i) {
    EvilNode node(hub.link->port(), revoked);
    ASSERT_TRUE(until([&] { return node.ended(); }, [&] { hub.turn(), node.turn(); })) << i;
  }
  auto node = connect(hub.link->port(), "node-1");
  EXPECT_TRUE(until([&] { return hub.connected("node-1") && node.connected("coordinator"); },
                    [&] { hub.turn(), node.turn(); }));
  EXPECT_EQ(hub.link->connections(), 1u);
  EXPECT_EQ(hub.last_ended(), "certificate revoked");
}

TEST_F(StreamLinks, RefuseAClientOfTls12AndOneWithoutCertificate) {
  auto hub = listen();
  const auto refusal_of = [&](int version) {
    const auto before = hub.link->ended().size();
    const Owned<SSL_CTX, SSL_CTX_free> context(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_set_min_proto_version(context.get(), version);
    SSL_CTX_set_max_proto_version(context.get(), version);
    constexpr unsigned char kAlpn[] = {4, 'f', 'l', '/', '1'};
    SSL_CTX_set_alpn_protos(context.get(), kAlpn, sizeof kAlpn);
    const Owned<SSL, SSL_free> client(SSL_new(context.get()));
    SSL_set_bio(client.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(client.get());
    test::Tcp tcp(hub.link->port());
    EXPECT_TRUE(until([&] { return hub.link->ended().size() > before; },
                      [&] {
                        SSL_do_handshake(client.get());
                        char* data = nullptr;
                        const auto size = BIO_get_mem_data(SSL_get_wbio(client.get()), &data);
                        tcp.send(std::as_bytes(std::span(data, std::size_t(size))));
                        (void)BIO_reset(SSL_get_wbio(client.get()));
                        hub.turn();
                        const auto answer = tcp.receive();
                        BIO_write(SSL_get_rbio(client.get()), answer.data(), int(answer.size()));
                      }));
    ERR_clear_error();
    return hub.last_ended();
  };
  EXPECT_EQ(refusal_of(TLS1_2_VERSION), "TLS version: only 1.3 is spoken");
  EXPECT_EQ(refusal_of(TLS1_3_VERSION), "no client certificate");
}

TEST_F(StreamLinks, GarbageEndsOnlyItsOwnConnection) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  const auto both = [&] { hub.turn(), node.turn(); };
  ASSERT_TRUE(
      until([&] { return hub.connected("node-1") && node.connected("coordinator"); }, both));
  test::Tcp scanner(hub.link->port());
  scanner.send(bytes_of("GET / HTTP/1.1\r\n\r\n"));
  ASSERT_TRUE(until([&] { return hub.last_ended() == "not TLS"; }, both));
  ASSERT_TRUE(until([&] { return scanner.receive(), scanner.ended(); }, both));
  EXPECT_TRUE(hub.connected("node-1"));
  EXPECT_EQ(hub.link->connections(), 1u);
}

TEST_F(StreamLinks, CrossingClosesLeaveNothingBehind) {
  auto hub = listen();
  for (int i = 0; i < 100; ++i) {
    test::Tcp scanner(hub.link->port());
    scanner.send(bytes_of("SSH-2.0-scanner\r\n"));
    if (i % 2) hub.turn();
    scanner.close();
    if (i % 3) hub.turn();
  }
  auto node = connect(hub.link->port(), "node-1");
  EXPECT_TRUE(until([&] { return hub.connected("node-1") && hub.link->connections() == 1; },
                    [&] { hub.turn(), node.turn(); }))
      << hub.link->connections() << " connections";
}

TEST_F(StreamLinks, ACertifiedLiarIsNamedAndCutAndTheOthersGoOn) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  const auto liar_files = consortium_.node("liar");
  const auto hello = encode_message(Hello{});
  auto endless = encode_frame(FrameType::kMessage, 0, {}, true);
  endless[8] = std::byte{0x7f};  // claims 2 GiB
  auto unknown = hello;
  unknown[2] = std::byte{99};
  const std::pair<Bytes, const char*> cases[] = {
      {endless, "at most 1048640 for its kind"},
      {encode_frame(FrameType::kMessage, 3, hello), "frame 3 instead of 0"},
      {encode_frame(FrameType::kMessage, 0, unknown), "message of unknown type 99"},
      {Bytes(100, std::byte{'x'}), "not a frame"},
      {encode_frame(FrameType::kMessage, 0, std::span(hello).first(4)), "Hello: short by"},
  };
  for (const auto& [bytes, reason] : cases) {
    hub.events.clear();
    EvilNode liar(hub.link->port(), liar_files);
    const auto turns = [&] { hub.turn(), node.turn(), liar.turn(); };
    ASSERT_TRUE(until([&] { return hub.connected("liar"); }, turns));
    liar.say(bytes);
    ASSERT_TRUE(until([&] { return !hub.connected("liar") && liar.ended(); }, turns)) << reason;
    EXPECT_THAT(hub.reasons("liar"), HasSubstr(reason));
    EXPECT_EQ(hub.link->ended().back().who, "liar");
  }
  EXPECT_EQ(node.reasons("coordinator"), "");
}

TEST_F(StreamLinks, MessagesBeforeALieAreDelivered) {
  auto hub = listen();
  EvilNode liar(hub.link->port(), consortium_.node("liar"));
  const auto turns = [&] { hub.turn(), liar.turn(); };
  ASSERT_TRUE(until([&] { return hub.connected("liar"); }, turns));
  liar.say(encode_frame(Hello{}, 0));
  liar.say(encode_frame(Hello{}, 0));
  ASSERT_TRUE(until([&] { return !hub.connected("liar"); }, turns));
  EXPECT_EQ(hub.messages("liar").size(), 1u);
  EXPECT_EQ(hub.reasons("liar"), "frame 0 instead of 1");
}

TEST_F(StreamLinks, SlowHandshakesAreCut) {
  listen_.limits.handshake_timeout = milliseconds(200);
  auto hub = listen();
  test::Tcp silent(hub.link->port()), slow(hub.link->port());
  const std::array slow_hello{std::byte{0x16}, std::byte{3}, std::byte{1},
                              std::byte{2},    std::byte{0}, std::byte{1}};
  std::size_t said = 0;
  ASSERT_TRUE(until([&] { return silent.ended() && slow.ended(); },
                    [&] {
                      if (said < slow_hello.size())
                        slow.send(std::span(slow_hello).subspan(said++, 1));
                      hub.turn();
                      ::usleep(10'000);
                      silent.receive(), slow.receive();
                    }));
  EXPECT_EQ(hub.last_ended(), "no handshake within 0.2 s");
  EXPECT_EQ(hub.link->connections(), 0u);
}

TEST_F(StreamLinks, LimitWhatAStrangerMaySend) {
  listen_.limits.max_handshake_bytes = 1000;
  auto hub = listen();
  test::Tcp stranger(hub.link->port());
  Bytes record(2000);  // the first bytes of a handshake record that never becomes whole
  record[0] = std::byte{0x16}, record[1] = record[2] = std::byte{3}, record[3] = std::byte{0x3f};
  record[5] = std::byte{1};
  stranger.send(record);
  ASSERT_TRUE(until([&] { return stranger.receive(), stranger.ended(); }, [&] { hub.turn(); }));
  EXPECT_EQ(hub.last_ended(), "over 1000 bytes before authentication");
}

TEST_F(StreamLinks, AFloodOfStrangersDoesNotShutTheDoor) {
  listen_.max_handshakes = 4;
  auto hub = listen();
  std::vector<test::Tcp> flood;
  for (int i = 0; i < 20; ++i) flood.emplace_back(hub.link->port());
  ASSERT_TRUE(until([&] { return hub.link->ended().size() == 16; }, [&] { hub.turn(); }));
  EXPECT_EQ(hub.last_ended(), "too many handshakes at once");
  EXPECT_EQ(hub.link->connections(), 4u);
  auto node = connect(hub.link->port(), "node-1");
  EXPECT_TRUE(until([&] { return hub.connected("node-1"); }, [&] { hub.turn(), node.turn(); }));
}

TEST_F(StreamLinks, OneNodeMoreThanTheLimitIsToldSo) {
  listen_.max_connections = 1;
  auto hub = listen();
  auto first = connect(hub.link->port(), "node-1");
  ASSERT_TRUE(until([&] { return hub.connected("node-1"); }, [&] { hub.turn(), first.turn(); }));
  auto second = connect(hub.link->port(), "node-2");
  ASSERT_TRUE(until([&] { return !hub.link->ended().empty(); },
                    [&] { hub.turn(), first.turn(), second.turn(); }));
  EXPECT_EQ(hub.link->ended().front().who, "node-2");
  EXPECT_EQ(hub.link->ended().front().reason, "1 nodes are connected, which is the limit");
  EXPECT_TRUE(hub.connected("node-1"));
}

TEST_F(StreamLinks, ANodeComesBackAfterTheCoordinatorRestarts) {
  auto hub = listen();
  listen_.endpoint = fmt::format("127.0.0.1:{}", hub.link->port());
  auto node = connect(hub.link->port(), "node-1");
  ASSERT_TRUE(
      until([&] { return node.connected("coordinator"); }, [&] { hub.turn(), node.turn(); }));
  hub.link.reset();
  ASSERT_TRUE(until([&] { return !node.connected("coordinator"); }, [&] { node.turn(); }));
  ASSERT_TRUE(until([&] { return node.link->ended().size() >= 4; }, [&] { node.turn(); }));
  EXPECT_THAT(node.last_ended(), HasSubstr("connection refused"));
  auto again = listen();
  ASSERT_TRUE(until([&] { return again.connected("node-1") && node.connected("coordinator"); },
                    [&] { again.turn(), node.turn(); }));
  node.link->send("coordinator", Hello{});
  EXPECT_TRUE(until([&] { return again.messages("node-1").size() == 1; },
                    [&] { again.turn(), node.turn(); }));
}

TEST_F(StreamLinks, TheNewerConnectionOfANameStays) {
  auto hub = listen();
  const auto files = consortium_.node("node-1");
  EvilNode older(hub.link->port(), files);
  ASSERT_TRUE(until([&] { return hub.connected("node-1"); }, [&] { hub.turn(), older.turn(); }));
  EvilNode newer(hub.link->port(), files);
  ASSERT_TRUE(
      until([&] { return older.ended(); }, [&] { hub.turn(), older.turn(), newer.turn(); }));
  EXPECT_THAT(hub.reasons("node-1"), HasSubstr("replaced by a newer connection"));
  EXPECT_TRUE(hub.connected("node-1"));
  newer.say(encode_frame(Hello{}, 0));
  EXPECT_TRUE(
      until([&] { return hub.messages("node-1").size() == 1; }, [&] { hub.turn(), newer.turn(); }));
}

TEST_F(StreamLinks, ANodeRevokedMidSessionIsCutAndTheOthersGoOn) {
  auto hub = listen();
  auto first = connect(hub.link->port(), "node-1"), second = connect(hub.link->port(), "node-2");
  const auto turns = [&] { hub.turn(), first.turn(), second.turn(); };
  ASSERT_TRUE(until([&] { return hub.connected("node-1") && hub.connected("node-2"); }, turns));
  consortium_.revoke("node-1");
  ASSERT_TRUE(until([&] { return !hub.connected("node-1"); }, turns));
  EXPECT_EQ(hub.reasons("node-1"), "certificate revoked");
  ASSERT_TRUE(
      until([&] { return first.last_ended() == "peer refused us: certificate revoked"; }, turns));
  EXPECT_TRUE(hub.connected("node-2"));
  EXPECT_TRUE(second.connected("coordinator"));
}

TEST_F(StreamLinks, APeerThatTakesNothingIsCutAndTheOthersGoOn) {
  listen_.limits.max_queue = 4 << 20;
  auto hub = listen();
  auto lazy = connect(hub.link->port(), "lazy"), good = connect(hub.link->port(), "good");
  ASSERT_TRUE(until([&] { return hub.connected("lazy") && hub.connected("good"); },
                    [&] { hub.turn(), lazy.turn(), good.turn(); }));
  ASSERT_TRUE(until([&] { return !hub.connected("lazy"); },
                    [&] {  // lazy gets no turn
                      hub.link->send("lazy", chunk(0));
                      hub.turn();
                      good.turn();
                    }));
  EXPECT_THAT(hub.reasons("lazy"), HasSubstr("takes too slowly"));
  hub.link->send("good", chunk(1));
  EXPECT_TRUE(until([&] { return good.messages("coordinator").size() == 1; },
                    [&] { hub.turn(), good.turn(); }));
  lazy.link.reset();
  EXPECT_TRUE(
      until([&] { return hub.link->connections() == 1; }, [&] { hub.turn(), good.turn(); }));
}

TEST_F(StreamLinks, APausedReceiverTakesABoundedAmount) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  ASSERT_TRUE(until([&] { return hub.connected("node-1") && node.connected("coordinator"); },
                    [&] { hub.turn(), node.turn(); }));
  std::uint64_t offered = 0;
  ASSERT_TRUE(until([&] { return !node.connected("coordinator"); },
                    [&] {  // hub gets no turn
                      node.link->send("coordinator", chunk(0));
                      offered += kChunkBytes;
                      node.turn();
                    }));
  EXPECT_THAT(node.reasons("coordinator"), HasSubstr("takes too slowly"));
  EXPECT_LT(offered, std::uint64_t{64} << 20) << "kernel, sockets and queue hold only so much";
}

TEST_F(StreamLinks, ASilentPeerIsCutAndAQuietOneIsKept) {
  listen_.limits.heartbeat = milliseconds(100);
  listen_.limits.idle = milliseconds(600);
  auto hub = listen();
  auto options = node_options(hub.link->port(), consortium_.node("quiet"));
  options.limits.heartbeat = milliseconds(100);
  options.limits.idle = milliseconds(600);
  auto quiet = connect(options);
  EvilNode silent(hub.link->port(), consortium_.node("silent"));
  ASSERT_TRUE(until(
      [&] {
        return hub.connected("silent") && hub.connected("quiet") && quiet.connected("coordinator");
      },
      [&] { hub.turn(), quiet.turn(), silent.turn(); }));
  const auto end = Clock::now() + milliseconds(1500);
  ASSERT_TRUE(until([&] { return !hub.connected("silent") && Clock::now() > end; },
                    [&] { hub.turn(), quiet.turn(); }));
  EXPECT_EQ(hub.reasons("silent"), "idle for 0.6 s");
  EXPECT_TRUE(hub.connected("quiet") && quiet.connected("coordinator"));
  EXPECT_EQ(hub.reasons("quiet"), "");
}

TEST_F(StreamLinks, ADisconnectDeliversWhatWasSentBefore) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  const auto both = [&] { hub.turn(), node.turn(); };
  ASSERT_TRUE(
      until([&] { return hub.connected("node-1") && node.connected("coordinator"); }, both));
  for (std::uint64_t i = 0; i < 8; ++i) hub.link->send("node-1", chunk(i));
  hub.link->send("node-1", Goodbye{"the job is over"});
  hub.link->disconnect("node-1", "job over");
  ASSERT_TRUE(until([&] { return !node.reasons("coordinator").empty(); }, both));
  EXPECT_EQ(node.messages("coordinator").size(), 9u);
  EXPECT_EQ(node.reasons("coordinator"), "closed by the peer");
  EXPECT_EQ(hub.reasons("node-1"), "job over");
}

TEST_F(StreamLinks, ALinkThatGoesAwayDeliversWhatWasSentBefore) {
  auto hub = listen();
  auto node = connect(hub.link->port(), "node-1");
  ASSERT_TRUE(until([&] { return hub.connected("node-1"); }, [&] { hub.turn(), node.turn(); }));
  hub.link->send("node-1", Goodbye{"the job is over"});
  hub.link.reset();
  ASSERT_TRUE(until([&] { return !node.reasons("coordinator").empty(); }, [&] { node.turn(); }));
  EXPECT_EQ(node.messages("coordinator").size(), 1u);
}

TEST_F(StreamLinks, BadOptionsAreErrorsThatSayWhere) {
  listen_.endpoint = "nowhere";
  EXPECT_THAT(StreamLink::listen(listen_).error().message, HasSubstr("'nowhere' is not host:port"));
  listen_.tls.ca = "/nowhere/ca.pem";
  EXPECT_THAT(StreamLink::listen(listen_).error().message, HasSubstr("/nowhere/ca.pem"));
  const auto read = [](const std::string& text) {
    return read_options<ListenOptions>(*parse_yaml(text, "hub.yaml"), "hub.yaml");
  };
  const auto options =
      read("endpoint: '[::]:9000'\nca: /etc/ca.pem\nidle_ms: 30000\nmax_connections: 10\n");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->tls.ca, "/etc/ca.pem");
  EXPECT_EQ(options->limits.idle, milliseconds(30'000));
  EXPECT_THAT(read("max_conections: 10\n").error().message, HasSubstr("max_connections"));
  EXPECT_FALSE(read("idle_ms: 0\n"));
}

}  // namespace
}  // namespace preceptor::transport
