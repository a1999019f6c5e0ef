#include <algorithm>
#include <cmath>

#include "common/half.h"
#include "common/options.h"
#include "compression/update/codec.h"
#include "compression/update/passes.h"
#include "compression/update/rounding.h"

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

struct QsgdOptions {
  int levels = 7;           ///< s, on each side of 0; 2 bits a value for 1, 4 up to 7, 8 up to 127
  int bucket = 512;         ///< values that share a norm
  std::string norm = "l2";  ///< max: finer steps; l2: more zeros, which an entropy coder likes
  template <class V>
  void visit(V& v) {
    v("levels", levels, Range{1, 127});
    v("bucket", bucket, Range{16, 65536});
    v("norm", norm, OneOf{"l2", "max"});
  }
};

/// Stochastic rounding to the levels -Q … Q times a scale a block (QSGD, Alistarh 2017,
/// arXiv:1610.02132; ternary: TernGrad, Wen 2017, arXiv:1705.07878). `quantize` has as many levels
/// as its bits hold and the block's largest magnitude for a scale; `qsgd` has any number, and the
/// norm that its authors divide by. The scale is a bfloat16 rounded up, so no value is clipped; only
/// |x| above the largest bfloat16 (3.39e38) is. Unbiased to 2^-23 of a step. Layout: varint n,
/// ceil(n / block) scales, then level + Q in `bits` bits each, low bits first.
class Quantize : public Codec {
 public:
  explicit Quantize(const QuantizeOptions& options)
      : name_("quantize"),
        bits_(unsigned(options.bits)),
        block_(std::size_t(options.block)),
        levels_((1u << (bits_ - 1)) - 1) {}
  explicit Quantize(const QsgdOptions& options)
      : name_("qsgd"),
        bits_(options.levels <= 1 ? 2 : options.levels <= 7 ? 4 : 8),
        block_(std::size_t(options.bucket)),
        levels_(unsigned(options.levels)),
        euclidean_(options.norm == "l2") {}

  void encode(Packet& packet, RandomStream& random) const override {
    const auto n = packet.values.size();
    Bytes head;
    head.reserve(size_bound(n, packet.bytes.size()));
    ByteWriter writer(head);
    writer.varint(n);
    Bytes codes(padded(n));
    std::vector<std::uint32_t> noise(std::min(block_, n));
    for (std::size_t at = 0; at < n; at += block_) {
      const auto block =
          std::span<const float>(packet.values).subspan(at, std::min(block_, n - at));
      const auto scale = to_bf16_up(norm(block));
      writer.put(scale);
      random.fill(std::span(noise).first(block.size()));
      round_stochastically(block, scale > 0 ? from_bf16(scale) : 1, levels_,
                           std::span(noise).first(block.size()), codes.data() + at);
    }
    pack_codes(codes, bits_, head);
    packet.put_front(std::move(head));
    packet.values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(take_count(reader, max_values, name_));
    const auto scales = TRY(reader.take(blocks(n) * sizeof(std::uint16_t)));
    const auto packed = TRY(reader.take(padded(n) * bits_ / 8));
    const auto codes = unpack_codes(packed, bits_);
    bool broken = std::any_of(codes.begin() + std::ptrdiff_t(n), codes.end(),
                              [](auto code) { return code != std::byte{0}; });
    packet.values.resize(n);
    for (std::size_t at = 0, i = 0; at < n; at += block_, ++i) {
      const auto scale = TRY(scale_at(scales, i, name_));
      const auto end = std::min(n, at + block_);
      broken |= values_of_codes(std::span(codes).subspan(at, end - at), levels_, scale,
                                packet.values.data() + at) > 2 * levels_;
    }
    if (broken)  // codes above 2 Q, and padding other than zero, stand for nothing
      return fail(Code::kCorrupt, "{}: a level outside -{} … {}", name_, levels_, levels_);
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
  std::size_t blocks(std::size_t n) const { return (n + block_ - 1) / block_; }
  /// Codes that fill whole bytes.
  std::size_t padded(std::size_t n) const {
    return (n + 8 / bits_ - 1) / (8 / bits_) * (8 / bits_);
  }

  /// Of a bucket's values; in double where their squares leave float's range.
  float norm(std::span<const float> block) const {
    const auto largest = largest_magnitude(block);
    if (!euclidean_ || largest == 0) return largest;
    double squares = 0;
    if (largest > 0x1p50f || largest < 0x1p-50f)
      for (const double x : block) squares += x * x;
    else
      squares = sum_of_squares(block);
    return std::max(largest, float(std::min(std::sqrt(squares), double(kBf16Max))));
  }

  const char* name_;
  unsigned bits_;
  std::size_t block_;
  unsigned levels_;  ///< Q
  bool euclidean_ = false;
};

const RegisterCodec kQuantize{
    "quantize", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      const auto options = TRY(read_settings<QuantizeOptions>(settings, "quantize"));
      if (!std::has_single_bit(unsigned(options.bits)))
        return fail(Code::kInvalid, "quantize: bits: {} is not one of: 2, 4, 8", options.bits);
      return std::make_unique<Quantize>(options);
    }};

const RegisterCodec kQsgd{
    "qsgd", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      return std::make_unique<Quantize>(TRY(read_settings<QsgdOptions>(settings, "qsgd")));
    }};

}  // namespace
}  // namespace preceptor::compression
