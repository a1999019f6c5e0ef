#include "transport/tls.h"

#include <gmock/gmock.h>

#include "common/random.h"
#include "tests/support/certificates.h"

namespace preceptor::transport {
namespace {

using ::testing::HasSubstr;

/// Both ends of a connection, with a wire that this test carries by hand.
struct Pair {
  Pair(const TlsContext& server_context, const TlsContext& client_context,
       const std::string& host = "localhost", RekeyAfter rekey = {})
      : server(server_context, "", rekey), client(client_context, host, rekey) {}

  /// Carries bytes until neither side has more to say, as a link would; keeps the first refusal of
  /// each.
  void handshake() {
    for (int turn = 0; turn < 8; ++turn) {
      step(client, server, client_refusal);
      step(server, client, server_refusal);
    }
  }
  std::string server_refusal, client_refusal;
  TlsSession server, client;

 private:
  static void step(TlsSession& from, TlsSession& to, std::string& refusal) {
    if (refusal.empty()) {
      const auto open = from.handshake();
      std::array<std::byte, 64> nothing;
      if (!open) {
        refusal = open.error().message;
      } else if (*open) {
        const auto read = from.read(nothing);
        if (!read) refusal = read.error().message;
      }
    }
    to.receive(from.take_output());
  }
};

class Tls : public ::testing::Test {
 protected:
  static TlsContext context(TlsSide side, const TlsFiles& files) {
    auto made = TlsContext::create(side, files);
    if (!made) throw std::runtime_error(made.error().message);
    return *std::move(made);
  }
  Pair refused(const TlsFiles& node, const std::string& host = "localhost") {
    Pair pair(server_, context(TlsSide::kClient, node), host);
    pair.handshake();
    return pair;
  }
  static Bytes noise(std::size_t size) {
    Bytes bytes(size);
    RandomStream random(7, "tls");
    for (auto& b : bytes) b = std::byte(random.bits32());
    return bytes;
  }

  test::Consortium consortium_;
  TlsFiles coordinator_files_ = consortium_.coordinator();
  TlsFiles node_files_ = consortium_.node("node-1");
  TlsContext server_ = context(TlsSide::kServer, coordinator_files_);
};

TEST_F(Tls, BothSidesKnowEachOther) {
  for (const char* host : {"localhost", "127.0.0.1"}) {
    const auto pair = refused(node_files_, host);
    EXPECT_EQ(pair.server_refusal + pair.client_refusal, "");
    EXPECT_EQ(pair.server.peer(), "node-1");
    EXPECT_EQ(pair.client.peer(), "coordinator");
  }
}

TEST_F(Tls, CarriesMuchAndRenewsItsKeys) {
  const auto client = context(TlsSide::kClient, node_files_);
  Pair pair(server_, client, "localhost", RekeyAfter{1 << 20, std::chrono::hours(1)});
  pair.handshake();
  const auto sent = noise(5 << 20);
  Bytes received;
  std::array<std::byte, 8192> piece;
  for (std::size_t at = 0; at < sent.size(); at += 256 << 10) {
    ASSERT_TRUE(pair.client.write(std::span(sent).subspan(at, 256 << 10)));
    pair.server.receive(pair.client.take_output());
    for (;;) {
      const auto size = pair.server.read(piece);
      ASSERT_TRUE(size) << size.error().message;
      if (*size == 0) break;
      received.insert(received.end(), piece.begin(), piece.begin() + std::ptrdiff_t(*size));
    }
  }
  EXPECT_EQ(received, sent);
  EXPECT_EQ(pair.client.rekeys(), 4);
  EXPECT_EQ(pair.server.rekeys(), 0) << "each side renews its own";
}

TEST_F(Tls, KeysAreRenewedByAgeToo) {
  const auto client = context(TlsSide::kClient, node_files_);
  Pair pair(server_, client, "localhost", RekeyAfter{1 << 30, std::chrono::seconds(-1)});
  pair.handshake();
  ASSERT_TRUE(pair.client.write(noise(100)));
  EXPECT_EQ(pair.client.rekeys(), 1);
}

TEST_F(Tls, RefusesEachBadCertificateWithItsReason) {
  test::Consortium stranger;
  consortium_.node("revoked");
  consortium_.revoke("revoked");
  ASSERT_TRUE(*server_.reload_if_changed());
  const auto in_consortium = consortium_.path();
  const auto with_ca_of_ours =
      [&](TlsFiles files) {  // so that the stranger accepts our coordinator
        files.ca = node_files_.ca;
        files.crl = node_files_.crl;
        return files;
      };
  const TlsFiles revoked{in_consortium / "revoked/cert.pem", in_consortium / "revoked/key.pem",
                         in_consortium / "revoked/ca.pem", in_consortium / "revoked/crl.pem"};
  auto other_use =
      consortium_.issue({"other", CertificateRole::kCoordinator, {"localhost"}, 30, {}});

  const struct {
    TlsFiles files;
    const char *server_says, *client_hears;
  } cases[] = {
      {with_ca_of_ours(stranger.node("node-1")), "foreign CA", "peer refused us: foreign CA"},
      {consortium_.node_of_another_time("late", -48, -24), "certificate expired",
       "peer refused us: certificate expired"},
      {consortium_.node_of_another_time("early", 24, 48), "certificate not yet valid",
       "peer refused us: certificate"},
      {revoked, "certificate revoked", "peer refused us: certificate revoked"},
      {other_use, "server certificate used as client",
       "peer refused us: certificate for another purpose"},
  };
  for (const auto& [files, server_says, client_hears] : cases) {
    const auto pair = refused(files);
    EXPECT_THAT(pair.server_refusal, ::testing::StartsWith(server_says));
    EXPECT_THAT(pair.client_refusal, ::testing::StartsWith(client_hears));
    EXPECT_EQ(pair.server.peer(), "");
  }
}

TEST_F(Tls, ANodeRefusesAFalseCoordinator) {
  EXPECT_EQ(refused(node_files_, "other.example.org").client_refusal,
            "certificate for another host");
  EXPECT_EQ(refused(node_files_, "127.0.0.2").client_refusal, "certificate for another host");

  server_ = context(TlsSide::kServer, consortium_.node("mallory"));
  EXPECT_EQ(refused(node_files_).client_refusal, "client certificate used as server");

  test::Consortium stranger;
  server_ = context(TlsSide::kServer, stranger.coordinator());
  const auto pair = refused(node_files_);
  EXPECT_EQ(pair.client_refusal, "foreign CA");
  EXPECT_EQ(pair.server_refusal, "peer refused us: foreign CA");

  server_ = context(TlsSide::kServer, coordinator_files_);
  consortium_.revoke("coordinator");
  EXPECT_EQ(refused(node_files_).client_refusal, "certificate revoked");
}

TEST_F(Tls, RefusesClientsOfAnotherProfile) {
  const auto refusal_of = [&](auto change) {
    auto client = context(TlsSide::kClient, node_files_);
    change(client.get());
    Pair pair(server_, client);
    pair.handshake();
    return pair.server_refusal;
  };
  EXPECT_THAT(refusal_of([](SSL_CTX* c) {
                SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
                SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
              }),
              HasSubstr("TLS version"));
  EXPECT_THAT(refusal_of([](SSL_CTX* c) { SSL_CTX_set_ciphersuites(c, "TLS_AES_128_GCM_SHA256"); }),
              HasSubstr("no cipher suite"));
  EXPECT_THAT(refusal_of([](SSL_CTX* c) { SSL_CTX_set1_groups_list(c, "P-384"); }),
              HasSubstr("no cipher suite"));
  EXPECT_THAT(refusal_of([](SSL_CTX* c) {
                constexpr unsigned char kHttp[] = {2, 'h', '2'};
                SSL_CTX_set_alpn_protos(c, kHttp, sizeof kHttp);
              }),
              HasSubstr("application protocol"));
  EXPECT_THAT(refusal_of([](SSL_CTX* c) { SSL_CTX_set_alpn_protos(c, nullptr, 0); }),
              HasSubstr("application protocol"));
  EXPECT_EQ(refusal_of([](SSL_CTX*) {}), "");
}

TEST_F(Tls, RefusesAClientWithoutCertificate) {
  const Owned<SSL_CTX, SSL_CTX_free> bare(SSL_CTX_new(TLS_client_method()));
  constexpr unsigned char kAlpn[] = {4, 'f', 'l', '/', '1'};
  SSL_CTX_set_alpn_protos(bare.get(), kAlpn, sizeof kAlpn);
  const Owned<SSL, SSL_free> client(SSL_new(bare.get()));
  SSL_set_bio(client.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  SSL_set_connect_state(client.get());
  TlsSession server(server_);
  std::string refusal;
  for (int turn = 0; turn < 4 && refusal.empty(); ++turn) {
    SSL_do_handshake(client.get());
    char* data = nullptr;
    const auto size = BIO_get_mem_data(SSL_get_wbio(client.get()), &data);
    server.receive(std::as_bytes(std::span(data, std::size_t(size))));
    (void)BIO_reset(SSL_get_wbio(client.get()));
    if (const auto open = server.handshake(); !open) refusal = open.error().message;
    const auto answer = server.take_output();
    BIO_write(SSL_get_rbio(client.get()), answer.data(), int(answer.size()));
  }
  EXPECT_EQ(refusal, "no client certificate");
}

TEST_F(Tls, GarbageIsNotTls) {
  for (const char* text :
       {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        "SSH-2.0-OpenSSH_9.2p1\r\n", "\x16\x03\x01\xff\xff\x01\x01\x01"}) {
    TlsSession server(server_);
    server.receive(bytes_of(text));
    const auto open = server.handshake();
    ASSERT_FALSE(open);
    EXPECT_EQ(open.error().message, "not TLS");
  }
}

TEST_F(Tls, AByteChangedOnTheWayEndsTheSession) {
  const auto client = context(TlsSide::kClient, node_files_);
  Pair pair(server_, client);
  pair.handshake();
  ASSERT_TRUE(pair.client.write(noise(100)));
  auto record = pair.client.take_output();
  record.back() ^= std::byte{1};
  pair.server.receive(record);
  std::array<std::byte, 200> to;
  const auto read = pair.server.read(to);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message, "bytes changed on the way");
}

TEST_F(Tls, CloseIsTold) {
  const auto client = context(TlsSide::kClient, node_files_);
  Pair pair(server_, client);
  pair.handshake();
  pair.server.close();
  pair.client.receive(pair.server.take_output());
  std::array<std::byte, 8> to;
  const auto read = pair.client.read(to);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::kUnavailable);
}

TEST_F(Tls, ALiveSessionIsCheckedAgainAgainstANewList) {
  const auto pair = refused(node_files_);
  EXPECT_TRUE(pair.server.check_again(server_));
  EXPECT_FALSE(*server_.reload_if_changed());
  consortium_.revoke("node-1");
  EXPECT_TRUE(pair.server.check_again(server_)) << "the old list is still in use";
  EXPECT_TRUE(*server_.reload_if_changed());
  const auto checked = pair.server.check_again(server_);
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().message, "certificate revoked");
}

TEST_F(Tls, AStaleListRefusesEveryone) {
  consortium_.renew_list(std::chrono::seconds(-1));
  ASSERT_TRUE(*server_.reload_if_changed());
  EXPECT_THAT(refused(node_files_).server_refusal, HasSubstr("revocation list is out of date"));
}

TEST_F(Tls, FilesThatDoNotGoTogetherAreNamedAndTheOldStayInUse) {
  test::Consortium stranger;
  const auto other = stranger.node("node-1");
  const auto refusal = [](TlsFiles files) {
    const auto made = TlsContext::create(TlsSide::kClient, files);
    return made ? "" : made.error().message;
  };
  auto files = node_files_;
  files.key = other.key;
  EXPECT_THAT(refusal(files), HasSubstr("is not the key of"));
  files = node_files_;
  files.crl = other.crl;
  EXPECT_THAT(refusal(files), HasSubstr("is not signed by"));
  files = node_files_;
  files.ca = "/nowhere/ca.pem";
  EXPECT_THAT(refusal(files), HasSubstr("/nowhere/ca.pem"));
  files = node_files_;
  files.certificate = node_files_.key;
  EXPECT_THAT(refusal(files), HasSubstr("not a certificate"));

  ASSERT_TRUE(write_file(coordinator_files_.crl, "half a li"));
  EXPECT_FALSE(server_.reload_if_changed());
  EXPECT_EQ(refused(node_files_).server_refusal, "");
}

}  // namespace
}  // namespace preceptor::transport
