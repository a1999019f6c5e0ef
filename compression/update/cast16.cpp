#include <algorithm>

#include "common/half.h"
#include "common/options.h"
#include "compression/update/codec.h"

namespace preceptor::compression {
namespace {

struct Cast16Options {
  std::string format = "bf16";  ///< fp16: finer, up to 65504; bf16: coarser, any size
  template <class V>
  void visit(V& v) {
    v("format", format, OneOf{"bf16", "fp16"});
  }
};

/// 16 bits a value, rounded to nearest even; what is too large for the format becomes its largest
/// finite value. Biased: the error depends on the value alone. Layout: varint n, the n low bytes,
/// the n high bytes (planes, which zstd shortens better).
class Cast16 : public Codec {
 public:
  explicit Cast16(const Cast16Options& options) : fp16_(options.format == "fp16") {}

  void encode(Packet& packet, RandomStream&) const override {
    const auto n = packet.values.size();
    Bytes head;
    ByteWriter(head).varint(n);
    const auto low = head.size();
    head.resize(low + 2 * n);
    const auto largest = fp16_ ? kFp16Max : kBf16Max;
    for (std::size_t i = 0; i < n; ++i) {
      const auto value = std::clamp(packet.values[i], -largest, largest);
      const auto bits = fp16_ ? to_fp16(value) : to_bf16(value);
      head[low + i] = std::byte(bits);
      head[low + n + i] = std::byte(bits >> 8);
    }
    packet.put_front(std::move(head));
    packet.values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(take_count(reader, max_values, "cast16"));
    const auto low = TRY(reader.take(n)), high = TRY(reader.take(n));
    packet.values.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      const auto bits = std::uint16_t(std::to_integer<unsigned>(high[i]) << 8 |
                                      std::to_integer<unsigned>(low[i]));
      packet.values[i] = fp16_ ? from_fp16(bits) : from_bf16(bits);
    }
    packet.drop_front(reader.left());
    return {};
  }

  bool unbiased() const override { return false; }
  bool wants_values() const override { return true; }
  std::size_t values_left(std::size_t) const override { return 0; }
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    return 10 + 2 * values + bytes;
  }

 private:
  bool fp16_;
};

const RegisterCodec kCast16{
    "cast16", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      return std::make_unique<Cast16>(TRY(read_settings<Cast16Options>(settings, "cast16")));
    }};

}  // namespace
}  // namespace preceptor::compression
