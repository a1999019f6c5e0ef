#pragma once
#include <openssl/err.h>
#include <openssl/evp.h>

#include <memory>
#include <string>

#include "common/bytes.h"

/// Owners of OpenSSL's objects, for the sources of this folder.
namespace preceptor::privacy {

template <auto Free>
struct EvpFree {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
using EvpKey = std::unique_ptr<EVP_PKEY, EvpFree<EVP_PKEY_free>>;
using EvpKeyContext = std::unique_ptr<EVP_PKEY_CTX, EvpFree<EVP_PKEY_CTX_free>>;
using EvpCipher = std::unique_ptr<EVP_CIPHER_CTX, EvpFree<EVP_CIPHER_CTX_free>>;
using EvpDigest = std::unique_ptr<EVP_MD_CTX, EvpFree<EVP_MD_CTX_free>>;

inline const unsigned char* raw(std::span<const std::byte> bytes) {
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
inline unsigned char* raw_out(std::span<std::byte> bytes) {
  return reinterpret_cast<unsigned char*>(bytes.data());
}

/// The newest reason in OpenSSL's queue of this thread, which is emptied.
inline std::string evp_reason() {
  const auto code = ERR_peek_last_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return reason ? reason : "no reason given";
}

}  // namespace preceptor::privacy
