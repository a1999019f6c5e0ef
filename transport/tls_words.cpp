#include "transport/tls_words.h"

namespace preceptor::transport {

std::string words_of_verdict(long verdict, TlsSide peer_side) {
  switch (verdict) {
    case X509_V_ERR_CERT_REVOKED:
      return "certificate revoked";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "certificate expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "certificate not yet valid: compare the clocks";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return "foreign CA";
    case X509_V_ERR_INVALID_PURPOSE:
      return peer_side == TlsSide::kClient ? "server certificate used as client"
                                           : "client certificate used as server";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return "certificate for another host";
    case X509_V_ERR_CRL_HAS_EXPIRED:
      return "our revocation list is out of date: renew it at the CA and copy it here";
    case X509_V_ERR_UNABLE_TO_GET_CRL:
      return "our revocation list is of another CA";
    default:
      return fmt::format("certificate refused: {}", X509_verify_cert_error_string(verdict));
  }
}

std::string words_of_alert(int alert) {
  switch (alert) {
    case SSL_AD_CERTIFICATE_REVOKED:
      return "certificate revoked";
    case SSL_AD_CERTIFICATE_EXPIRED:
      return "certificate expired or not yet valid, or its revocation list is out of date";
    case SSL_AD_UNKNOWN_CA:
      return "foreign CA";
    case SSL_AD_CERTIFICATE_REQUIRED:
      return "no client certificate";
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
      return "certificate for another purpose";
    case SSL_AD_BAD_CERTIFICATE:
      return "certificate not accepted";
    case SSL_AD_PROTOCOL_VERSION:
      return "TLS version";
    case SSL_AD_NO_APPLICATION_PROTOCOL:
      return "application protocol";
    default:
      return SSL_alert_desc_string_long(alert);
  }
}

std::string words_of_library(int reason) {
  switch (reason) {
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "no client certificate";
    case SSL_R_UNSUPPORTED_PROTOCOL:
      return "TLS version: only 1.3 is spoken";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
    case SSL_R_UNEXPECTED_MESSAGE:
    case SSL_R_BAD_RECORD_TYPE:
      return "not TLS";
    case SSL_R_NO_APPLICATION_PROTOCOL:
      return "application protocol: only fl/1 is spoken";
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_GROUPS:
      return "no cipher suite or group in common";
    case SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC:
      return "bytes changed on the way";
    default: {
      const char* text = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, reason));
      return fmt::format("TLS: {}", text ? text : "error");
    }
  }
}

}  // namespace preceptor::transport
