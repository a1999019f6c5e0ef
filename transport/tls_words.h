#pragma once
#include <string>

#include "transport/tls.h"

/// OpenSSL's codes as the reasons that the log and docs/wire.md give.
namespace preceptor::transport {

/// Of a failed certificate check (X509_V_ERR_…); the peer is on `peer_side`.
std::string words_of_verdict(long verdict, TlsSide peer_side);
/// Of an alert that the peer sent (RFC 8446, 6.2), without "peer refused us: ".
std::string words_of_alert(int alert);
/// Of another failure of the TLS library (SSL_R_…).
std::string words_of_library(int reason);

}  // namespace preceptor::transport
