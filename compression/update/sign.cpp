#include <cmath>

#include "common/half.h"
#include "common/options.h"
#include "compression/update/codec.h"
#include "compression/update/lloyd_max.h"
#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

struct SignOptions {
  int bucket = 512;  ///< values that share a scale; a multiple of 16
  template <class V>
  void visit(V& v) {
    v("bucket", bucket, Range{16, 65536});
  }
};

constexpr float kOne[] = {1};
constexpr LloydMax kSigns{1, kOne, {}};

/// The sign of each value times the bucket's mean magnitude, which is the scale of least error
/// (Bernstein 2018, arXiv:1802.04434; scaled, Karimireddy 2019, arXiv:1901.09847). Biased: use error
/// feedback. Layout: varint n, a bfloat16 scale a bucket, one plane of signs.
class Sign : public Codec {
 public:
  explicit Sign(const SignOptions& options) : bucket_(std::size_t(options.bucket)) {}

  void encode(Packet& packet, RandomStream&) const override {
    const auto n = packet.values.size();
    Bytes head;
    head.reserve(size_bound(n, packet.bytes.size()));
    ByteWriter writer(head);
    writer.varint(n);
    Bytes plane(plane_bytes(n) + 2);
    for (std::size_t at = 0; at < n; at += bucket_) {
      const auto end = std::min(n, at + bucket_);
      const auto sum = quantise_planes(kSigns, packet.values, at, end, 1, plane.data(), 0);
      writer.put(to_bf16(std::min(mean(sum, std::span(packet.values).subspan(at, end - at)),
                                  kBf16Max)));
    }
    writer.put(std::span<const std::byte>(plane).first(plane_bytes(n)));
    packet.put_front(std::move(head));
    packet.values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(take_count(reader, max_values, "sign"));
    const auto scales = TRY(reader.take((n + bucket_ - 1) / bucket_ * sizeof(std::uint16_t)));
    const auto signs = TRY(reader.take(plane_bytes(n)));
    if (n % 8 != 0 && std::to_integer<unsigned>(signs.back()) >> n % 8 != 0)
      return fail(Code::kCorrupt, "sign: padding that is not zero");
    Bytes plane(signs.size() + 2);
    std::ranges::copy(signs, plane.begin());
    packet.values.resize(n);
    for (std::size_t at = 0, i = 0; at < n; at += bucket_, ++i) {
      const auto scale = TRY(scale_at(scales, i, "sign"));
      dequantise_planes(kSigns, packet.values, at, std::min(n, at + bucket_), scale,
                        plane.data(), 0);
    }
    packet.drop_front(reader.left());
    return {};
  }

  bool unbiased() const override { return false; }
  bool wants_values() const override { return true; }
  std::size_t values_left(std::size_t) const override { return 0; }
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    return 10 + (values + bucket_ - 1) / bucket_ * sizeof(std::uint16_t) + plane_bytes(values) +
           bytes;
  }

 private:
  /// A sum in float overflows before the mean does.
  static float mean(double sum, std::span<const float> bucket) {
    if (!std::isfinite(sum)) {
      sum = 0;
      for (const double x : bucket) sum += std::abs(x);
    }
    return float(sum / double(bucket.size()));
  }

  std::size_t bucket_;
};

const RegisterCodec kSign{
    "sign", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      const auto options = TRY(read_settings<SignOptions>(settings, "sign"));
      if (options.bucket % 16 != 0)
        return fail(Code::kInvalid, "sign: bucket: {} is not a multiple of 16", options.bucket);
      return std::make_unique<Sign>(options);
    }};

}  // namespace
}  // namespace preceptor::compression
