#include <zstd.h>

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "common/options.h"
#include "compression/update/codec.h"

namespace preceptor::compression {
namespace {

struct ZstdOptions {
  int level = 3;  ///< higher is slower and a little smaller
  template <class V>
  void visit(V& v) {
    v("level", level, Range{1, 19});
  }
};

/// Bytes after each of which the entropy coder starts a new table, so that planes do not share one.
constexpr std::size_t kSection = 64 << 10;
constexpr std::size_t kPlanes = sizeof(float);

/// Contexts are large and may be used again by the same thread.
ZSTD_CCtx* compressor() {
  static thread_local const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(
      ZSTD_createCCtx(), &ZSTD_freeCCtx);
  if (!context) throw std::bad_alloc();
  return context.get();
}
ZSTD_DCtx* decompressor() {
  static thread_local const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(
      ZSTD_createDCtx(), &ZSTD_freeDCtx);
  if (!context) throw std::bad_alloc();
  return context.get();
}

std::size_t checked(std::size_t result) {
  if (ZSTD_isError(result))
    throw std::logic_error(std::string("zstd: ") + ZSTD_getErrorName(result));
  return result;
}

/// Lossless: Zstandard (RFC 8878) over the packet's bytes. Floats that are still there go in front
/// of them as byte planes, least significant first; the sign moves to the lowest bit so that the
/// exponent is one byte. Layout: varint floats, one zstd frame that states its content's size.
class Zstd : public Codec {
 public:
  explicit Zstd(const ZstdOptions& options) : level_(options.level) {}

  void encode(Packet& packet, RandomStream&) const override {
    const auto n = packet.values.size();
    Bytes raw(n * kPlanes);
    for (std::size_t i = 0; i < n; ++i) {
      const auto bits = std::rotl(std::bit_cast<std::uint32_t>(packet.values[i]), 1);
      for (std::size_t plane = 0; plane < kPlanes; ++plane)
        raw[plane * n + i] = std::byte(bits >> 8 * plane);
    }
    raw.insert(raw.end(), packet.bytes.begin(), packet.bytes.end());
    packet.bytes.clear();
    ByteWriter(packet.bytes).varint(n);
    compress(raw, packet.bytes);
    packet.values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(reader.varint());
    const auto frame = std::span<const std::byte>(packet.bytes).last(reader.left());
    const auto size = ZSTD_getFrameContentSize(frame.data(), frame.size());
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN)
      return fail(Code::kCorrupt, "zstd: not a frame that states its size");
    if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size())
      return fail(Code::kCorrupt, "zstd: bytes after the frame, or too few");
    if (size > max_raw(max_values) || n > max_values || n * kPlanes > size)
      return fail(Code::kCorrupt, "zstd: {} bytes with {} floats, in a tile of {} floats", size, n,
                  max_values);
    Bytes raw(size);
    const auto got =
        ZSTD_decompressDCtx(decompressor(), raw.data(), raw.size(), frame.data(), frame.size());
    if (ZSTD_isError(got)) return fail(Code::kCorrupt, "zstd: {}", ZSTD_getErrorName(got));
    if (got != size) return fail(Code::kCorrupt, "zstd: {} bytes where {} were stated", got, size);
    packet.values.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t bits = 0;
      for (std::size_t plane = 0; plane < kPlanes; ++plane)
        bits |= std::to_integer<std::uint32_t>(raw[plane * n + i]) << 8 * plane;
      packet.values[i] = std::bit_cast<float>(std::rotr(bits, 1));
    }
    packet.bytes = std::move(raw);
    packet.drop_front(packet.bytes.size() - n * kPlanes);
    return {};
  }

  bool unbiased() const override { return true; }
  bool wants_values() const override { return false; }
  std::size_t values_left(std::size_t) const override { return 0; }
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    return 10 + ZSTD_compressBound(values * kPlanes +
                                   bytes);  // its slack is more than the sections' headers
  }

 private:
  /// What Pipeline::kMaxStages stages make of a tile is below this; a bomb is above.
  static std::size_t max_raw(std::size_t max_values) { return 8 * max_values + 4096; }

  void compress(std::span<const std::byte> raw, Bytes& out) const {
    auto* context = compressor();
    checked(ZSTD_CCtx_reset(context, ZSTD_reset_session_and_parameters));
    checked(ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level_));
    checked(ZSTD_CCtx_setPledgedSrcSize(context, raw.size()));
    const auto start = out.size();
    out.resize(start + ZSTD_compressBound(raw.size()));
    ZSTD_outBuffer output{out.data() + start, out.size() - start, 0};
    for (std::size_t at = 0;;) {
      const auto length = std::min(kSection, raw.size() - at);
      ZSTD_inBuffer input{raw.data() + at, length, 0};
      at += length;
      const auto last = at == raw.size();
      if (checked(ZSTD_compressStream2(context, &output, &input,
                                       last ? ZSTD_e_end : ZSTD_e_flush)) != 0)
        throw std::logic_error("zstd: more than its bound");
      if (last) break;
    }
    out.resize(start + output.pos);
  }

  int level_;
};

const RegisterCodec kZstd{
    "zstd", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      return std::make_unique<Zstd>(TRY(read_settings<ZstdOptions>(settings, "zstd")));
    }};

}  // namespace
}  // namespace preceptor::compression
