#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/random.h"
#include "common/result.h"

namespace preceptor::privacy {

/// Uniform random words for noise, buffered. Not thread-safe. The buffer is wiped when it goes.
class RandomSource {
 public:
  virtual ~RandomSource();
  RandomSource(const RandomSource&) = delete;
  RandomSource& operator=(const RandomSource&) = delete;

  /// Must hold for noise that protects somebody; false for tests' and simulations' seeded noise.
  virtual bool secret() const = 0;
  std::uint64_t word() {
    if (next_ == buffer_.size()) refill();
    return buffer_[next_++];
  }

  /// What word() throws when the operating system has no randomness to give; sample() catches it.
  struct Exhausted {
    Error error;
  };

 protected:
  RandomSource() : buffer_(kWords), next_(kWords) {}
  virtual Result<void> fill(std::span<std::uint64_t> words) = 0;

 private:
  static constexpr std::size_t kWords = 4096;  ///< 32 KiB a call: OpenSSL gives at most 64 KiB
  void refill();
  std::vector<std::uint64_t> buffer_;
  std::size_t next_;
};

/// RAND_priv_bytes of OpenSSL, an AES-256-CTR generator seeded by the kernel; each answer is
/// checked.
std::unique_ptr<RandomSource> secret_source();
/// A seeded stream: the same noise each time, so no protection. For tests, and for simulations,
/// whose reports say so.
std::unique_ptr<RandomSource> seeded_source(RandomStream stream);

}  // namespace preceptor::privacy
