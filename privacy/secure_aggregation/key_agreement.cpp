#include "privacy/secure_aggregation/key_agreement.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/obj_mac.h>
#include <openssl/param_build.h>

#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {
namespace {

using Number = std::unique_ptr<BIGNUM, EvpFree<BN_clear_free>>;
using Group = std::unique_ptr<EC_GROUP, EvpFree<EC_GROUP_free>>;
using Point = std::unique_ptr<EC_POINT, EvpFree<EC_POINT_free>>;
using Builder = std::unique_ptr<OSSL_PARAM_BLD, EvpFree<OSSL_PARAM_BLD_free>>;
using Params = std::unique_ptr<OSSL_PARAM, EvpFree<OSSL_PARAM_free>>;

/// The public point of a P-256 scalar, by OpenSSL's constant-time ladder.
Result<Bytes> p256_public(const Secret<32>& secret) {
  const Group group(EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1));
  const Number scalar(BN_bin2bn(raw(secret.view()), 32, BN_secure_new()));
  if (!scalar) return fail(Code::kUnavailable, "no memory for a key");
  BN_set_flags(scalar.get(), BN_FLG_CONSTTIME);
  if (BN_is_zero(scalar.get()) || BN_cmp(scalar.get(), EC_GROUP_get0_order(group.get())) >= 0)
    return fail(Code::kCorrupt, "a private key outside P-256's order");
  const Point point(EC_POINT_new(group.get()));
  Bytes out(65);
  if (EC_POINT_mul(group.get(), point.get(), scalar.get(), nullptr, nullptr, nullptr) != 1 ||
      EC_POINT_point2oct(group.get(), point.get(), POINT_CONVERSION_UNCOMPRESSED, raw_out(out), 65,
                         nullptr) != 65)
    return fail(Code::kUnavailable, "P-256 failed ({})", evp_reason());
  return out;
}

/// secret empty: a public key.
EvpKey p256_key(std::span<const std::byte> public_key, const Secret<32>* secret) {
  const Builder builder(OSSL_PARAM_BLD_new());
  Number scalar(secret ? BN_bin2bn(raw(secret->view()), 32, BN_secure_new()) : nullptr);
  if (scalar) BN_set_flags(scalar.get(), BN_FLG_CONSTTIME);
  OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0);
  OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, public_key.data(), public_key.size());
  if (scalar) OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_PRIV_KEY, scalar.get());
  const Params params(OSSL_PARAM_BLD_to_param(builder.get()));
  const EvpKeyContext context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  EVP_PKEY* key = nullptr;
  if (!params || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, secret ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY, params.get()) != 1)
    return nullptr;
  return EvpKey(key);
}

}  // namespace

Result<AgreementKey> AgreementKey::generate(Suite suite) {
  // A random scalar lies outside P-256's order with probability 2^-32.
  for (int attempt = 0; attempt < 8; ++attempt) {
    auto key = of(suite, TRY(Secret<32>::random()));
    if (key) return key;
  }
  return fail(Code::kUnavailable, "no key in eight attempts ({})", evp_reason());
}

Result<AgreementKey> AgreementKey::of(Suite suite, Secret<32> secret) {
  if (suite == Suite::kP256Aes256) {
    auto public_key = TRY(p256_public(secret));
    return AgreementKey(suite, std::move(secret), std::move(public_key));
  }
  const EvpKey key(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, raw(secret.view()), 32));
  Bytes public_key(32);
  std::size_t size = 32;
  if (!key || EVP_PKEY_get_raw_public_key(key.get(), raw_out(public_key), &size) != 1)
    return fail(Code::kUnavailable, "X25519 failed ({})", evp_reason());
  return AgreementKey(suite, std::move(secret), std::move(public_key));
}

Result<Secret<32>> AgreementKey::agree(std::span<const std::byte> peer_public) const {
  if (peer_public.size() != agreement_key_size(suite_))
    return fail(Code::kRefused, "a public key of {} bytes; this suite's have {}", peer_public.size(),
                agreement_key_size(suite_));
  EvpKey mine, peer;
  if (suite_ == Suite::kX25519ChaCha20) {
    mine.reset(EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, nullptr, raw(secret_.view()), 32));
    peer.reset(EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, nullptr, raw(peer_public), 32));
  } else {
    mine = p256_key(public_, &secret_);
    peer = p256_key(peer_public, nullptr);
  }
  if (!peer) return fail(Code::kRefused, "a public key that is no point of the curve ({})", evp_reason());
  if (!mine) return fail(Code::kUnavailable, "own key failed ({})", evp_reason());
  const EvpKeyContext context(EVP_PKEY_CTX_new_from_pkey(nullptr, mine.get(), nullptr));
  Secret<32> shared;
  std::size_t size = 32;
  // set_peer checks that the point is on the curve; X25519's derive refuses an all-zero result.
  if (!context || EVP_PKEY_derive_init(context.get()) != 1 || EVP_PKEY_derive_set_peer(context.get(), peer.get()) != 1 ||
      EVP_PKEY_derive(context.get(), raw_out(shared.bytes()), &size) != 1 || size != 32)
    return fail(Code::kRefused, "a public key that allows no agreement ({})", evp_reason());
  return shared;
}

}  // namespace preceptor::privacy
