#include "privacy/secure_aggregation/signature.h"

namespace preceptor::privacy {
namespace {

/// The digest that EVP_DigestSign wants named; null for Ed25519.
Result<const EVP_MD*> digest_of(EVP_PKEY* key) {
  if (key && EVP_PKEY_is_a(key, "ED25519")) return nullptr;
  char group[32] = {};
  if (key && EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof group, nullptr) == 1 &&
      std::string_view(group) == "prime256v1")
    return EVP_sha256();
  return fail(Code::kRefused, "a key that is neither Ed25519 nor P-256");
}

}  // namespace

Result<Bytes> sign(EVP_PKEY* key, std::span<const std::byte> message) {
  const auto* digest = TRY(digest_of(key));
  const EvpDigest context(EVP_MD_CTX_new());
  std::size_t size = 0;
  if (!context || EVP_DigestSignInit(context.get(), nullptr, digest, nullptr, key) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, raw(message), message.size()) != 1)
    return fail(Code::kUnavailable, "signing failed ({})", evp_reason());
  Bytes signature(size);
  if (EVP_DigestSign(context.get(), raw_out(signature), &size, raw(message), message.size()) != 1)
    return fail(Code::kUnavailable, "signing failed ({})", evp_reason());
  signature.resize(size);
  return signature;
}

Result<void> verify(EVP_PKEY* key, std::span<const std::byte> message, std::span<const std::byte> signature) {
  const auto* digest = TRY(digest_of(key));
  const EvpDigest context(EVP_MD_CTX_new());
  if (!context || EVP_DigestVerifyInit(context.get(), nullptr, digest, nullptr, key) != 1 ||
      EVP_DigestVerify(context.get(), raw(signature), signature.size(), raw(message), message.size()) != 1) {
    ERR_clear_error();
    return fail(Code::kRefused, "signature does not verify");
  }
  return {};
}

}  // namespace preceptor::privacy
