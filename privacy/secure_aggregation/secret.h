#pragma once
#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "common/bytes.h"

namespace preceptor::privacy {

/// N bytes that nobody else may read: wiped when they die or are moved from, copied only by name,
/// never printed, compared in constant time.
template <std::size_t N>
class Secret {
 public:
  Secret() = default;
  /// `bytes`: exactly N; the caller's copy is the caller's to wipe.
  static Secret of(std::span<const std::byte> bytes) {
    Secret secret;
    std::copy_n(bytes.begin(), N, secret.bytes_.begin());
    return secret;
  }
  /// From OpenSSL's private CTR-DRBG. Error: kUnavailable, when it has no entropy.
  static Result<Secret> random() {
    Secret secret;
    if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(secret.bytes_.data()), int(N)) != 1)
      return fail(Code::kUnavailable, "the system's random generator gives nothing");
    return secret;
  }
  Secret(Secret&& other) noexcept : bytes_(other.bytes_) { other.wipe(); }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      bytes_ = other.bytes_;
      other.wipe();
    }
    return *this;
  }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;
  ~Secret() { wipe(); }

  Secret copy() const { return of(bytes_); }
  void wipe() { OPENSSL_cleanse(bytes_.data(), N); }
  std::span<const std::byte, N> view() const { return bytes_; }
  std::span<std::byte, N> bytes() { return bytes_; }
  bool operator==(const Secret& other) const {
    return CRYPTO_memcmp(bytes_.data(), other.bytes_.data(), N) == 0;
  }

 private:
  std::array<std::byte, N> bytes_{};
};

/// Wipes a buffer of secrets (stored state, plaintext) when the scope ends.
class WipeLater {
 public:
  explicit WipeLater(Bytes& bytes) : bytes_(bytes) {}
  WipeLater(const WipeLater&) = delete;
  ~WipeLater() { OPENSSL_cleanse(bytes_.data(), bytes_.size()); }

 private:
  Bytes& bytes_;
};

}  // namespace preceptor::privacy
