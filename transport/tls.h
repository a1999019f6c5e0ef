#pragma once
#include <array>
#include <chrono>
#include <string>

#include "common/bytes.h"
#include "transport/openssl.h"

namespace preceptor::transport {

enum class TlsSide { kServer, kClient };

/// PEM files, as `preceptor ca issue` hands them over in one directory.
struct TlsFiles {
  std::string certificate = "cert.pem";  ///< one's own
  std::string key = "key.pem";           ///< of the certificate; without a password, mode 0600
  std::string ca = "ca.pem";             ///< the consortium's root, the only one trusted
  std::string crl = "crl.pem";           ///< its revocation list; re-read when the file changes
  template <class V>
  void visit(V& v) {
    v("certificate", certificate), v("key", key), v("ca", ca), v("crl", crl);
  }
  bool operator==(const TlsFiles&) const = default;
};

/// The profile of docs/wire.md: TLS 1.3 only, two cipher suites, both sides show a certificate, the
/// revocation list is checked on each connection (no tickets, no resumption), application protocol
/// "fl/1". One thread. Sessions keep what they need alive.
class TlsContext {
 public:
  /// Error: names the file that is missing, broken, or does not match the others.
  static Result<TlsContext> create(TlsSide side, const TlsFiles& files);

  /// True when a file has changed and all four were read again; call every few seconds. Error: the
  /// files do not go together (a copy under way, say); the old ones stay in use, and the next call
  /// tries again.
  Result<bool> reload_if_changed();

  TlsSide side() const { return side_; }
  SSL_CTX* get() const { return context_.get(); }

 private:
  struct Stamp {
    std::array<std::filesystem::file_time_type, 4> written{};
    std::array<std::uintmax_t, 4> size{};
    bool operator==(const Stamp&) const = default;
  };
  static Stamp stamp(const TlsFiles& files);

  TlsSide side_ = TlsSide::kServer;
  TlsFiles files_;
  Stamp stamp_;
  Owned<SSL_CTX, SSL_CTX_free> context_;
};

/// New traffic keys after so much was sent, so that no key covers more (RFC 8446, 5.5).
struct RekeyAfter {
  std::uint64_t bytes = std::uint64_t{1} << 30;
  std::chrono::seconds age = std::chrono::hours(1);
};

/// One side of one TLS connection, without a socket: ciphertext from the peer goes into receive(),
/// ciphertext for the peer comes from take_output() after any call. One thread. Errors are kRefused
/// with plain words
/// ("certificate revoked", "peer refused us: foreign CA"), or kUnavailable for "closed by the
/// peer"; the session is then over, and a last take_output() holds the alert that tells the peer.
class TlsSession {
 public:
  /// `host`: what a client dialled; the server's certificate must be for it. A server passes "".
  explicit TlsSession(const TlsContext& context, const std::string& host = "",
                      RekeyAfter rekey = {});

  /// Keeps a copy until handshake() and read() have used it.
  void receive(std::span<const std::byte> ciphertext);
  Bytes take_output();

  /// Goes on as far as the received bytes allow. True: the peer is known, and read and write may
  /// begin.
  Result<bool> handshake();
  /// Plaintext that fits `to`; 0 when there is none yet.
  Result<std::size_t> read(std::span<std::byte> to);
  Result<void> write(std::span<const std::byte> plaintext);
  void close();  ///< says close_notify

  /// From the URI in the peer's certificate; "" before the handshake is over.
  const std::string& peer() const { return peer_; }
  /// Would the peer's certificate still be accepted, by `context` as it is now? Error: the reason.
  Result<void> check_again(const TlsContext& context) const;
  int rekeys() const { return rekeys_; }  ///< how often our sending keys were renewed

 private:
  Result<void> know_peer();
  Result<void> rekey_if_due(std::size_t about_to_send);
  void collect_output();
  std::unexpected<Error> refusal(int returned);

  TlsSide side_;
  Owned<SSL, SSL_free> ssl_;
  BIO *in_ = nullptr, *out_ = nullptr;  ///< owned by ssl_
  Bytes output_;
  std::string peer_;
  bool failed_ = false;
  RekeyAfter rekey_;
  std::uint64_t sent_under_key_ = 0;
  std::chrono::steady_clock::time_point keyed_at_;
  int rekeys_ = 0;
};

}  // namespace preceptor::transport
