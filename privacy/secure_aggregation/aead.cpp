#include "privacy/secure_aggregation/aead.h"

#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {
namespace {

const EVP_CIPHER* cipher(Suite suite) {
  return suite == Suite::kX25519ChaCha20 ? EVP_chacha20_poly1305() : EVP_aes_256_gcm();
}

}  // namespace

Result<Bytes> seal(Suite suite, const Secret<32>& key, std::span<const std::byte> plain,
                   std::span<const std::byte> associated, const Nonce& nonce) {
  const EvpCipher context(EVP_CIPHER_CTX_new());
  Bytes out(plain.size() + kTagBytes);
  int size = 0, last = 0;
  if (!context || EVP_EncryptInit_ex2(context.get(), cipher(suite), raw(key.view()), raw(nonce), nullptr) != 1 ||
      EVP_EncryptUpdate(context.get(), nullptr, &size, raw(associated), int(associated.size())) != 1 ||
      EVP_EncryptUpdate(context.get(), raw_out(out), &size, raw(plain), int(plain.size())) != 1 ||
      EVP_EncryptFinal_ex(context.get(), raw_out(out) + size, &last) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, int(kTagBytes), raw_out(out) + plain.size()) != 1)
    return fail(Code::kUnavailable, "encryption failed ({})", evp_reason());
  return out;
}

Result<Bytes> open(Suite suite, const Secret<32>& key, std::span<const std::byte> sealed,
                   std::span<const std::byte> associated, const Nonce& nonce) {
  if (sealed.size() < kTagBytes) return fail(Code::kRefused, "{} bytes sealed; a tag has {}", sealed.size(), kTagBytes);
  const auto body = sealed.first(sealed.size() - kTagBytes);
  auto tag = Bytes(sealed.end() - kTagBytes, sealed.end());
  const EvpCipher context(EVP_CIPHER_CTX_new());
  Bytes out(body.size());
  int size = 0, last = 0;
  if (!context || EVP_DecryptInit_ex2(context.get(), cipher(suite), raw(key.view()), raw(nonce), nullptr) != 1 ||
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, int(kTagBytes), tag.data()) != 1 ||
      EVP_DecryptUpdate(context.get(), nullptr, &size, raw(associated), int(associated.size())) != 1 ||
      EVP_DecryptUpdate(context.get(), raw_out(out), &size, raw(body), int(body.size())) != 1 ||
      EVP_DecryptFinal_ex(context.get(), raw_out(out) + size, &last) != 1) {
    OPENSSL_cleanse(out.data(), out.size());  // unauthenticated plaintext leaves nobody's hands
    ERR_clear_error();
    return fail(Code::kRefused, "sealed bytes do not authenticate");
  }
  return out;
}

}  // namespace preceptor::privacy
