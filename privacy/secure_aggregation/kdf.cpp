#include "privacy/secure_aggregation/kdf.h"

#include <openssl/core_names.h>
#include <openssl/kdf.h>

#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {

Result<void> hkdf(std::span<const std::byte> key, std::span<const std::byte> salt, std::span<const std::byte> info,
                  std::span<std::byte> out) {
  using Kdf = std::unique_ptr<EVP_KDF, EvpFree<EVP_KDF_free>>;
  using KdfContext = std::unique_ptr<EVP_KDF_CTX, EvpFree<EVP_KDF_CTX_free>>;
  const Kdf kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  const KdfContext context(kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr);
  auto octets = [](const char* name, std::span<const std::byte> bytes) {
    static unsigned char none = 0;  // OpenSSL takes a null pointer for an absent parameter
    auto* data = bytes.empty() ? &none : const_cast<unsigned char*>(raw(bytes));
    return OSSL_PARAM_construct_octet_string(name, data, bytes.size());
  };
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
                               octets(OSSL_KDF_PARAM_KEY, key), octets(OSSL_KDF_PARAM_SALT, salt),
                               octets(OSSL_KDF_PARAM_INFO, info), OSSL_PARAM_construct_end()};
  if (!context || EVP_KDF_derive(context.get(), raw_out(out), out.size(), params) != 1)
    return fail(Code::kInvalid, "HKDF-SHA256 gives no {} bytes ({})", out.size(), evp_reason());
  return {};
}

Result<Secret<32>> derive_key(std::span<const std::byte> key, std::span<const std::byte> salt,
                              std::span<const std::byte> info) {
  Secret<32> out;
  if (auto done = hkdf(key, salt, info, out.bytes()); !done) return std::unexpected(done.error());
  return out;
}

}  // namespace preceptor::privacy
