#include "transport/tls.h"

#include <algorithm>

#include "transport/certificates.h"
#include "transport/tls_words.h"

namespace preceptor::transport {
namespace {

constexpr unsigned char kAlpn[] = {4, 'f', 'l', '/',
                                   '1'};  // length, then the name, as TLS wants it
constexpr const char* kCipherSuites = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
constexpr const char* kGroups = "X25519:P-256";
constexpr long kMaxPeerChain = 16 << 10;  ///< bytes of certificates that a stranger may send
constexpr std::size_t kRecord = 16 << 10;

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* length,
                    const unsigned char* offered, unsigned int offered_length, void*) {
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, length, kAlpn, sizeof kAlpn, offered, offered_length) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

/// The rules of the profile; files come after.
bool apply_profile(SSL_CTX* context, TlsSide side) {
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_cert_list(context, kMaxPeerChain);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  if (side == TlsSide::kServer) SSL_CTX_set_alpn_select_cb(context, choose_protocol, nullptr);
  return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
         SSL_CTX_set_ciphersuites(context, kCipherSuites) &&
         SSL_CTX_set1_groups_list(context, kGroups) && SSL_CTX_set_num_tickets(context, 0) &&
         SSL_CTX_set_max_early_data(context, 0) &&
         (side == TlsSide::kServer || SSL_CTX_set_alpn_protos(context, kAlpn, sizeof kAlpn) == 0);
}

Result<void> load_files(SSL_CTX* context, const TlsFiles& files) {
  const auto certificate = TRY(read_certificate(files.certificate));
  const auto key = TRY(read_key(files.key));
  const auto ca = TRY(read_certificate(files.ca));
  const auto crl = TRY(read_crl(files.crl));
  if (SSL_CTX_use_certificate(context, certificate.get()) != 1)
    return fail(Code::kInvalid, "{}: {}", files.certificate, openssl_reason());
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1)
    return fail(Code::kInvalid, "{} is not the key of {}", files.key, files.certificate);
  if (X509_CRL_verify(crl.get(), X509_get0_pubkey(ca.get())) != 1) {
    ERR_clear_error();
    return fail(Code::kInvalid, "{} is not signed by {}", files.crl, files.ca);
  }
  auto* store = SSL_CTX_get_cert_store(context);
  if (!X509_STORE_add_cert(store, ca.get()) || !X509_STORE_add_crl(store, crl.get()) ||
      !X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT))
    return fail(Code::kInvalid, "{}: {}", files.ca, openssl_reason());
  return {};
}

/// The name behind `urn:fl:<role>:` in the certificate, or "".
std::string name_in(X509* certificate, std::string_view prefix) {
  const Owned<GENERAL_NAMES, GENERAL_NAMES_free> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const auto* entry = sk_GENERAL_NAME_value(names.get(), i);
    if (entry->type != GEN_URI) continue;
    const auto* text = entry->d.uniformResourceIdentifier;
    const std::string uri(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                          std::size_t(ASN1_STRING_length(text)));
    if (!uri.starts_with(prefix)) continue;
    auto name = uri.substr(prefix.size());
    if (check_name(name)) return name;
  }
  return "";
}

}  // namespace

TlsContext::Stamp TlsContext::stamp(const TlsFiles& files) {
  Stamp stamp;
  const std::array paths{&files.certificate, &files.key, &files.ca, &files.crl};
  std::error_code ignored;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    stamp.written[i] = std::filesystem::last_write_time(*paths[i], ignored);
    stamp.size[i] = std::filesystem::file_size(*paths[i], ignored);
  }
  return stamp;
}

Result<TlsContext> TlsContext::create(TlsSide side, const TlsFiles& files) {
  TlsContext made;
  made.side_ = side;
  made.files_ = files;
  made.stamp_ = stamp(files);  // before reading: a change in between is seen later
  made.context_.reset(
      SSL_CTX_new(side == TlsSide::kServer ? TLS_server_method() : TLS_client_method()));
  if (!made.context_ || !apply_profile(made.get(), side))
    return fail(Code::kInvalid, "this OpenSSL cannot do the TLS profile: {}", openssl_reason());
  TRY(load_files(made.get(), files));
  return made;
}

Result<bool> TlsContext::reload_if_changed() {
  if (stamp(files_) == stamp_) return false;
  *this = TRY(create(side_, files_));
  return true;
}

TlsSession::TlsSession(const TlsContext& context, const std::string& host, RekeyAfter rekey)
    : side_(context.side()),
      ssl_(SSL_new(context.get())),
      in_(BIO_new(BIO_s_mem())),
      out_(BIO_new(BIO_s_mem())),
      rekey_(rekey),
      keyed_at_(std::chrono::steady_clock::now()) {
  BIO_set_mem_eof_return(in_, -1);
  BIO_set_mem_eof_return(out_, -1);
  SSL_set_bio(ssl_.get(), in_, out_);
  if (side_ == TlsSide::kServer) {
    SSL_set_accept_state(ssl_.get());
    return;
  }
  SSL_set_connect_state(ssl_.get());
  SSL_set1_host(ssl_.get(), host.c_str());
  char* address = X509_VERIFY_PARAM_get1_ip_asc(SSL_get0_param(ssl_.get()));
  if (!address) SSL_set_tlsext_host_name(ssl_.get(), host.c_str());  // SNI is for names only
  OPENSSL_free(address);
}

void TlsSession::receive(std::span<const std::byte> ciphertext) {
  BIO_write(in_, ciphertext.data(), int(ciphertext.size()));
}

Bytes TlsSession::take_output() {
  collect_output();
  return std::exchange(output_, {});
}

void TlsSession::collect_output() {
  char* data = nullptr;
  const auto size = BIO_get_mem_data(out_, &data);
  const auto* first = reinterpret_cast<const std::byte*>(data);
  output_.insert(output_.end(), first, first + size);
  (void)BIO_reset(out_);
}

Result<bool> TlsSession::handshake() {
  if (!peer_.empty()) return true;
  ERR_clear_error();
  const int returned = SSL_do_handshake(ssl_.get());
  if (returned == 1) {
    TRY(know_peer());
    return true;
  }
  if (SSL_get_error(ssl_.get(), returned) == SSL_ERROR_WANT_READ) return false;
  return refusal(returned);
}

Result<void> TlsSession::know_peer() {
  const unsigned char* protocol = nullptr;
  unsigned int length = 0;
  SSL_get0_alpn_selected(ssl_.get(), &protocol, &length);
  if (std::string_view(reinterpret_cast<const char*>(protocol), length) != "fl/1")
    return fail(Code::kRefused, "application protocol: only fl/1 is spoken");
  const bool node = side_ == TlsSide::kServer;
  peer_ =
      name_in(SSL_get0_peer_certificate(ssl_.get()), node ? "urn:fl:node:" : "urn:fl:coordinator:");
  if (peer_.empty())
    return fail(Code::kRefused, "certificate that names no {}", node ? "node" : "coordinator");
  return {};
}

Result<std::size_t> TlsSession::read(std::span<std::byte> to) {
  ERR_clear_error();
  const int returned = SSL_read(ssl_.get(), to.data(), int(to.size()));
  if (returned > 0) return std::size_t(returned);
  if (SSL_get_error(ssl_.get(), returned) == SSL_ERROR_WANT_READ) return std::size_t{0};
  return refusal(returned);
}

Result<void> TlsSession::write(std::span<const std::byte> plaintext) {
  ERR_clear_error();
  while (!plaintext.empty()) {
    const auto piece = plaintext.first(std::min(plaintext.size(), kRecord));
    TRY(rekey_if_due(piece.size()));
    const int returned = SSL_write(ssl_.get(), piece.data(), int(piece.size()));
    if (returned <= 0) return refusal(returned);
    collect_output();  // a record at a time, so that the BIO stays small
    plaintext = plaintext.subspan(piece.size());
  }
  return {};
}

Result<void> TlsSession::rekey_if_due(std::size_t about_to_send) {
  const auto now = std::chrono::steady_clock::now();
  sent_under_key_ += about_to_send;
  if (sent_under_key_ <= rekey_.bytes && now - keyed_at_ <= rekey_.age) return {};
  if (SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) != 1) return refusal(0);
  sent_under_key_ = about_to_send;
  keyed_at_ = now;
  ++rekeys_;
  return {};
}

void TlsSession::close() {
  if (!failed_ && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

Result<void> TlsSession::check_again(const TlsContext& context) const {
  const Owned<X509_STORE_CTX, X509_STORE_CTX_free> check(X509_STORE_CTX_new());
  const bool node = side_ == TlsSide::kServer;
  if (!X509_STORE_CTX_init(check.get(), SSL_CTX_get_cert_store(context.get()),
                           SSL_get0_peer_certificate(ssl_.get()), nullptr) ||
      !X509_STORE_CTX_set_default(check.get(), node ? "ssl_client" : "ssl_server"))
    return fail(Code::kRefused, "certificate cannot be checked: {}", openssl_reason());
  const bool good = X509_verify_cert(check.get()) == 1;
  ERR_clear_error();
  if (good) return {};
  return fail(Code::kRefused, "{}",
              words_of_verdict(X509_STORE_CTX_get_error(check.get()),
                               node ? TlsSide::kClient : TlsSide::kServer));
}

std::unexpected<Error> TlsSession::refusal(int returned) {
  failed_ = true;
  const int kind = SSL_get_error(ssl_.get(), returned);
  const auto code = ERR_peek_last_error();
  const int reason = ERR_GET_REASON(code);
  const auto verdict = SSL_get_verify_result(ssl_.get());
  ERR_clear_error();
  if (kind == SSL_ERROR_ZERO_RETURN) return fail(Code::kUnavailable, "closed by the peer");
  if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET &&
      reason < SSL_AD_REASON_OFFSET + 256)
    return fail(Code::kRefused, "peer refused us: {}",
                words_of_alert(reason - SSL_AD_REASON_OFFSET));
  if (verdict != X509_V_OK)
    return fail(
        Code::kRefused, "{}",
        words_of_verdict(verdict, side_ == TlsSide::kServer ? TlsSide::kClient : TlsSide::kServer));
  return fail(Code::kRefused, "{}", words_of_library(reason));
}

}  // namespace preceptor::transport
