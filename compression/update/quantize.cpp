#include <algorithm>
#include <cmath>

#include "common/half.h"
#include "common/options.h"
#include "compression/update/codec.h"

namespace preceptor::compression {
namespace {

struct QuantizeOptions {
  int bits = 8;     ///< a value: 8, 4 or 2
  int block = 256;  ///< values that share a scale; fewer cost more bytes and lose less
  template <class V>
  void visit(V& v) {
    v("bits", bits, Range{2, 8});
    v("block", block, Range{16, 65536});
  }
};

/// Stochastic rounding to the levels -Q … Q times a scale a block, Q = 2^(bits-1) - 1, so 2 bits
/// are ternary (QSGD, Alistarh 2017, arXiv:1610.02132; TernGrad, Wen 2017, arXiv:1705.07878). The
/// scale is the block's largest magnitude as a bfloat16 rounded up, so no value is clipped; only
/// |x| above the largest bfloat16 (3.39e38) is. Unbiased to 2^-23 of a step. Layout: varint n,
/// ceil(n / block) scales, then level + Q in `bits` bits each, low bits first.
class Quantize : public Codec {
 public:
  explicit Quantize(const QuantizeOptions& options)
      : bits_(unsigned(options.bits)),
        block_(std::size_t(options.block)),
        levels_((1u << (bits_ - 1)) - 1) {}

  void encode(Packet& packet, RandomStream& random) const override {
    const auto n = packet.values.size();
    Bytes head;
    head.reserve(size_bound(n, packet.bytes.size()));
    ByteWriter writer(head);
    writer.varint(n);
    std::vector<std::uint8_t> codes(padded(n));
    std::vector<std::uint32_t> noise(std::min(block_, n));
    for (std::size_t at = 0; at < n; at += block_) {
      const auto block =
          std::span<const float>(packet.values).subspan(at, std::min(block_, n - at));
      const auto scale = to_bf16_up(largest(block));
      writer.put(scale);
      random.fill(std::span(noise).first(block.size()));
      round(block, from_bf16(scale), noise.data(), codes.data() + at);
    }
    pack(codes, head);
    packet.put_front(std::move(head));
    packet.values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(reader.varint());
    if (n > max_values)
      return fail(Code::kCorrupt, "quantize: {} values in a tile of {}", n, max_values);
    const auto scales = TRY(reader.take(blocks(n) * sizeof(std::uint16_t)));
    const auto packed = TRY(reader.take(padded(n) * bits_ / 8));
    const auto codes = TRY(unpack(packed, n));
    packet.values.resize(n);
    for (std::size_t at = 0, i = 0; at < n; at += block_, ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, scales.data() + i * sizeof bits, sizeof bits);
      if (bits > 0x7f7f)
        return fail(Code::kCorrupt, "quantize: a scale that is negative or not finite");
      const auto scale = from_bf16(bits), step = 1.0f / float(levels_);
      const auto end = std::min(n, at + block_);
      for (auto j = at; j < end; ++j)
        packet.values[j] = float(int(codes[j]) - int(levels_)) * step * scale;
    }
    packet.drop_front(reader.left());
    return {};
  }

  bool unbiased() const override { return true; }
  bool wants_values() const override { return true; }
  std::size_t values_left(std::size_t) const override { return 0; }
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    return kMaxVarint + blocks(values) * sizeof(std::uint16_t) + padded(values) * bits_ / 8 + bytes;
  }

 private:
  static constexpr std::size_t kMaxVarint = 10;
  static constexpr unsigned kFraction = 23;  ///< bits of the fixed point that is rounded

  std::size_t blocks(std::size_t n) const { return (n + block_ - 1) / block_; }
  /// Codes that fill whole bytes.
  std::size_t padded(std::size_t n) const {
    return (n + 8 / bits_ - 1) / (8 / bits_) * (8 / bits_);
  }

  static float largest(std::span<const float> block) {
    std::uint32_t most = 0;
    for (const float x : block) most = std::max(most, std::bit_cast<std::uint32_t>(x) & 0x7fffffff);
    return std::bit_cast<float>(most);
  }

  /// x / scale is at most 1, so (x / scale + 1) * Q in fixed point, and noise below one level, fit
  /// 31 bits.
  void round(std::span<const float> block, float scale, const std::uint32_t* noise,
             std::uint8_t* codes) const {
    const auto divisor = scale > 0 ? scale : 1.0f, to_fixed = float(levels_ << kFraction);
    const auto zero = std::int32_t(levels_ << kFraction);
    for (std::size_t i = 0; i < block.size(); ++i) {
      const auto unit = std::clamp(block[i] / divisor, -1.0f, 1.0f);
      const auto fixed =
          zero + std::int32_t(unit * to_fixed) + std::int32_t(noise[i] >> (32 - kFraction));
      codes[i] = std::uint8_t(fixed >> kFraction);
    }
  }

  void pack(const std::vector<std::uint8_t>& codes, Bytes& out) const {
    const auto in_byte = 8 / bits_;
    for (std::size_t i = 0; i < codes.size(); i += in_byte) {
      unsigned byte = 0;
      for (unsigned j = 0; j < in_byte; ++j) byte |= unsigned(codes[i + j]) << j * bits_;
      out.push_back(std::byte(byte));
    }
  }

  /// The code 2^bits - 1 and padding other than zero stand for nothing.
  Result<std::vector<std::uint8_t>> unpack(std::span<const std::byte> packed, std::size_t n) const {
    const auto in_byte = 8 / bits_, mask = (1u << bits_) - 1;
    std::vector<std::uint8_t> codes(packed.size() * in_byte);
    bool broken = false;
    for (std::size_t i = 0; i < packed.size(); ++i) {
      for (unsigned j = 0; j < in_byte; ++j) {
        const auto code = std::to_integer<unsigned>(packed[i]) >> j * bits_ & mask;
        codes[i * in_byte + j] = std::uint8_t(code);
        broken |= code == mask;
      }
    }
    for (auto i = n; i < codes.size(); ++i) broken |= codes[i] != 0;
    if (broken) return fail(Code::kCorrupt, "quantize: a level outside -{} … {}", levels_, levels_);
    return codes;
  }

  unsigned bits_;
  std::size_t block_;
  unsigned levels_;  ///< Q
};

const RegisterCodec kQuantize{
    "quantize", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      const auto options = TRY(read_settings<QuantizeOptions>(settings, "quantize"));
      if (!std::has_single_bit(unsigned(options.bits)))
        return fail(Code::kInvalid, "quantize: bits: {} is not one of: 2, 4, 8", options.bits);
      return std::make_unique<Quantize>(options);
    }};

}  // namespace
}  // namespace preceptor::compression
