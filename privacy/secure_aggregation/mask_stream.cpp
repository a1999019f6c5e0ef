#include "privacy/secure_aggregation/mask_stream.h"

#include <cstring>

#include "privacy/secure_aggregation/evp.h"

namespace preceptor::privacy {
namespace {

constexpr std::size_t kTile = MaskStream::kTileBytes;
alignas(64) constexpr unsigned char kZeros[kTile] = {};

/// A fixed trip count and no aliasing, so that -O2 makes vectors of it.
template <bool kSubtract, class Word>
inline void fold_lines(Word* __restrict words, const Word* __restrict mask, std::size_t lines) {
  constexpr std::size_t kLine = 64 / sizeof(Word);
  for (std::size_t line = 0; line < lines; ++line, words += kLine, mask += kLine) {
    for (std::size_t i = 0; i < kLine; ++i) {
      if constexpr (kSubtract) {
        words[i] -= mask[i];
      } else {
        words[i] += mask[i];
      }
    }
  }
}

}  // namespace

struct MaskStream::State {
  Suite suite;
  Secret<32> key;
  EvpCipher context;
  std::uint64_t position = 0;  ///< bytes
  alignas(64) std::byte tile[kTile];

  State(Suite s, Secret<32> k) : suite(s), key(std::move(k)), context(EVP_CIPHER_CTX_new()) {}
  ~State() { OPENSSL_cleanse(tile, sizeof tile); }
  bool start(std::uint64_t block) {
    unsigned char iv[16] = {};
    if (suite == Suite::kX25519ChaCha20) {
      for (int i = 0; i < 4; ++i) iv[i] = (unsigned char)(block >> (8 * i));
    } else {
      for (int i = 0; i < 8; ++i) iv[15 - i] = (unsigned char)(block >> (8 * i));
    }
    const auto* cipher = suite == Suite::kX25519ChaCha20 ? EVP_chacha20() : EVP_aes_256_ctr();
    return context && EVP_EncryptInit_ex2(context.get(), cipher, raw(key.view()), iv, nullptr) == 1;
  }
};

MaskStream::MaskStream(std::unique_ptr<State> state) : state_(std::move(state)) {}
MaskStream::MaskStream(MaskStream&&) noexcept = default;
MaskStream& MaskStream::operator=(MaskStream&&) noexcept = default;
MaskStream::~MaskStream() = default;

Result<MaskStream> MaskStream::create(Suite suite, const Secret<32>& key) {
  auto state = std::make_unique<State>(suite, key.copy());
  if (!state->start(0)) return fail(Code::kUnavailable, "OpenSSL has no cipher for masks ({})", evp_reason());
  return MaskStream(std::move(state));
}

Result<void> MaskStream::seek(std::uint64_t word, std::size_t word_bytes) {
  if (word > kMaxBytes / word_bytes) return fail(Code::kInvalid, "word {} is beyond a mask's end", word);
  const std::uint64_t to = word * word_bytes;
  if (to == state_->position) return {};
  const std::uint64_t block_bytes = state_->suite == Suite::kX25519ChaCha20 ? 64 : 16;
  if (!state_->start(to / block_bytes)) return fail(Code::kUnavailable, "the mask's cipher failed ({})", evp_reason());
  state_->position = to - to % block_bytes;
  return next(std::size_t(to % block_bytes));
}

/// Fills the tile's first bytes.
Result<void> MaskStream::next(std::size_t bytes) {
  int size = 0;
  if (state_->position + bytes > kMaxBytes) return fail(Code::kInvalid, "a mask of over {} bytes", kMaxBytes);
  if (EVP_EncryptUpdate(state_->context.get(), raw_out(state_->tile), &size, kZeros, int(bytes)) != 1)
    return fail(Code::kUnavailable, "the mask's cipher failed ({})", evp_reason());
  state_->position += bytes;
  return {};
}

Result<void> MaskStream::keystream(std::span<std::byte> out) {
  while (!out.empty()) {
    const auto count = std::min(out.size(), kTile);
    if (auto made = next(count); !made) return made;
    std::memcpy(out.data(), state_->tile, count);
    out = out.subspan(count);
  }
  return {};
}

template <bool kSubtract, class Word>
Result<void> MaskStream::fold(std::span<Word> words) {
  constexpr std::size_t kLine = 64 / sizeof(Word);
  while (!words.empty()) {
    const auto count = std::min(words.size(), kTile / sizeof(Word));
    if (auto made = next(count * sizeof(Word)); !made) return made;
    const auto* mask = reinterpret_cast<const Word*>(state_->tile);
    const auto lines = count / kLine;
    fold_lines<kSubtract>(words.data(), mask, lines);
    for (std::size_t i = lines * kLine; i < count; ++i) words[i] = kSubtract ? words[i] - mask[i] : words[i] + mask[i];
    words = words.subspan(count);
  }
  return {};
}

Result<void> MaskStream::add(std::span<std::uint32_t> words) { return fold<false>(words); }
Result<void> MaskStream::add(std::span<std::uint64_t> words) { return fold<false>(words); }
Result<void> MaskStream::subtract(std::span<std::uint32_t> words) { return fold<true>(words); }
Result<void> MaskStream::subtract(std::span<std::uint64_t> words) { return fold<true>(words); }

}  // namespace preceptor::privacy
