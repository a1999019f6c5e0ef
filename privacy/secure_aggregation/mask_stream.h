#pragma once
#include <memory>

#include "privacy/secure_aggregation/secret.h"
#include "privacy/secure_aggregation/suite.h"

namespace preceptor::privacy {

/// The stream of words that hides a vector: ChaCha20's keystream (RFC 8439, nonce zero, counter from
/// 0) or AES-256-CTR's, read as little-endian words. A key makes one stream for one vector of one
/// session. Owned by one thread.
class MaskStream {
 public:
  static constexpr std::size_t kTileBytes = 16 << 10;  ///< keystream made at a time: stays in the L1 cache
  static constexpr std::uint64_t kMaxBytes = std::uint64_t(1) << 36;  ///< far below where the counter wraps

  /// Error: kUnavailable, when OpenSSL has no such cipher.
  static Result<MaskStream> create(Suite suite, const Secret<32>& key);
  MaskStream(MaskStream&&) noexcept;
  MaskStream& operator=(MaskStream&&) noexcept;
  ~MaskStream();

  /// Goes to a word of `word_bytes` (4 or 8) bytes; in front of any add or subtract that does not go
  /// on where the last one ended.
  Result<void> seek(std::uint64_t word, std::size_t word_bytes);
  /// words += or -= the next words of the stream, modulo 2^32 or 2^64; cut to r bits afterwards.
  Result<void> add(std::span<std::uint32_t> words);
  Result<void> add(std::span<std::uint64_t> words);
  Result<void> subtract(std::span<std::uint32_t> words);
  Result<void> subtract(std::span<std::uint64_t> words);
  /// The next bytes of the stream as they are.
  Result<void> keystream(std::span<std::byte> out);

 private:
  struct State;
  explicit MaskStream(std::unique_ptr<State> state);
  template <bool kSubtract, class Word>
  Result<void> fold(std::span<Word> words);
  Result<void> next(std::size_t bytes);
  std::unique_ptr<State> state_;
};

}  // namespace preceptor::privacy
