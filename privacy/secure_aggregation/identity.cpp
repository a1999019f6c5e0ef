#include "privacy/secure_aggregation/identity.h"

#include <algorithm>

#include "privacy/secure_aggregation/signature.h"

namespace preceptor::privacy {

Result<KeySigner> KeySigner::generate() {
  EvpKey key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return fail(Code::kUnavailable, "no Ed25519 key ({})", evp_reason());
  return KeySigner(std::move(key));
}

Bytes KeySigner::credential() const {
  Bytes out(32);
  std::size_t size = 32;
  if (EVP_PKEY_get_raw_public_key(key_.get(), raw_out(out), &size) != 1)
    throw std::logic_error("an Ed25519 key without public half");
  return out;
}

Result<Bytes> KeySigner::sign(std::span<const std::byte> message) const { return privacy::sign(key_.get(), message); }

Digest KeyRoster::digest() const {
  Sha256 hash;
  hash.update("fl/sa/1/roster");
  for (const auto& [name, key] : keys_) hash.update(sha256(name)).update(sha256(key));
  return hash.finish();
}

Result<void> KeyRoster::verify(const std::string& name, std::span<const std::byte> credential,
                               std::span<const std::byte> message, std::span<const std::byte> signature) const {
  const auto pinned = keys_.find(name);
  if (pinned == keys_.end()) return fail(Code::kRefused, "{}: not on the roster", name);
  if (!std::ranges::equal(pinned->second, credential))
    return fail(Code::kRefused, "{}: a foreign key, not the one on the roster", name);
  const EvpKey key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, raw(credential), credential.size()));
  if (!key) return fail(Code::kRefused, "{}: not an Ed25519 key ({})", name, evp_reason());
  if (auto verified = privacy::verify(key.get(), message, signature); !verified) return in(name, verified.error());
  return {};
}

}  // namespace preceptor::privacy
