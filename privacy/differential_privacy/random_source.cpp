#include "privacy/differential_privacy/random_source.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

namespace preceptor::privacy {
namespace {

class Secret final : public RandomSource {
 public:
  bool secret() const override { return true; }

 private:
  Result<void> fill(std::span<std::uint64_t> words) override {
    if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(words.data()), int(words.size_bytes())) != 1)
      return fail(Code::kUnavailable, "OpenSSL has no random bytes: no noise can be drawn, so nothing is released");
    return {};
  }
};

class Seeded final : public RandomSource {
 public:
  explicit Seeded(RandomStream stream) : stream_(std::move(stream)) {}
  bool secret() const override { return false; }

 private:
  Result<void> fill(std::span<std::uint64_t> words) override {
    for (auto& word : words) word = stream_.bits64();
    return {};
  }
  RandomStream stream_;
};

}  // namespace

RandomSource::~RandomSource() { OPENSSL_cleanse(buffer_.data(), buffer_.size() * sizeof(buffer_[0])); }

void RandomSource::refill() {
  if (auto filled = fill(buffer_); !filled) throw Exhausted{filled.error()};
  next_ = 0;
}

std::unique_ptr<RandomSource> secret_source() { return std::make_unique<Secret>(); }
std::unique_ptr<RandomSource> seeded_source(RandomStream stream) { return std::make_unique<Seeded>(std::move(stream)); }

}  // namespace preceptor::privacy
