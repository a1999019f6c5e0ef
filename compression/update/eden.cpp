#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "common/options.h"
#include "compression/update/codec.h"
#include "compression/update/hadamard.h"
#include "compression/update/lloyd_max.h"
#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

struct EdenOptions {
  int bits = 2;       ///< a value: 1 to 4
  int chunk = 8192;   ///< values rotated together; a power of two
  std::string scale = "unbiased";  ///< least: smallest error, biased; for error feedback
  template <class V>
  void visit(V& v) {
    v("bits", bits, Range{1, 4});
    v("chunk", chunk, Range{64, double(kMaxHadamard)});
    v("scale", scale, OneOf{"unbiased", "least"});
  }
};

constexpr float kLargest = std::numeric_limits<float>::max();

/// Values that share a scale: what one transform left last, from a whole step on.
struct Region {
  std::size_t begin, end;
};
std::vector<Region> regions_of(const RandomRotation& rotation, std::size_t n) {
  std::vector<Region> regions;
  for (const auto start : rotation.starts()) {
    const auto begin = start / 64 * 64;
    if (!regions.empty()) regions.back().end = begin;
    if (!regions.empty() && regions.back().begin == begin) regions.pop_back();
    regions.push_back({begin, n});
  }
  return regions;
}

/// EDEN (Vargaftik 2022, arXiv:2108.08842; at one bit DRIVE, 2021, arXiv:2105.08339): the tile is
/// rotated at random, so that its values are close to Gaussian whatever they were, quantised to the
/// Lloyd-Max levels of a Gaussian, and scaled a chunk by |y|² / <y, Q(y)>, which makes the estimate
/// unbiased: exactly so for a uniformly random rotation, and here, with Hadamard's, as far as a few
/// thousand values allow. The normalised squared error is D / (1 - D), D the quantiser's: 0.571,
/// 0.133, 0.0358 and 0.0096 at 1 to 4 bits. Layout: varint n, u64 seed of the signs, fp32 scale a
/// region, then the planes of the codes.
class Eden : public Codec {
 public:
  explicit Eden(const EdenOptions& options)
      : quantiser_(lloyd_max(unsigned(options.bits))),
        chunk_(std::size_t(options.chunk)),
        least_(options.scale == "least") {}

  void encode(Packet& packet, RandomStream& random) const override {
    auto& values = packet.values;
    const auto n = values.size();
    const auto seed = random.bits64();
    const auto rotation = rotation_of(n, seed);
    // Sums of squares stay in range: only a tile far from 1 is brought there, by a power of two.
    const auto exponent = far_exponent(largest_magnitude(values));
    if (exponent != 0) scale_by_power(values, -exponent);
    rotation.apply(values);

    const auto regions = regions_of(rotation, n);
    const auto stride = plane_bytes(n);
    Bytes head;
    head.reserve(size_bound(n, packet.bytes.size()));
    ByteWriter writer(head);
    writer.varint(n);
    writer.put(seed);
    const auto scales = head.size(), planes = scales + regions.size() * sizeof(float);
    // The last step of a plane writes whole 16 bits, so planes are made with room between them.
    Bytes codes((stride + 2) * quantiser_.bits);
    head.resize(planes + stride * quantiser_.bits);
    for (std::size_t i = 0; i < regions.size(); ++i) {
      const auto scale = std::ldexp(quantise(values, regions[i], codes, stride + 2), exponent);
      const auto sent = float(std::min(scale, double(kLargest)));
      std::memcpy(head.data() + scales + i * sizeof sent, &sent, sizeof sent);
    }
    for (std::size_t bit = 0; bit < quantiser_.bits; ++bit)
      std::memcpy(head.data() + planes + bit * stride, codes.data() + bit * (stride + 2), stride);
    packet.put_front(std::move(head));
    values.clear();
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(take_count(reader, max_values, "eden"));
    const auto seed = TRY(reader.get<std::uint64_t>());
    const auto stride = plane_bytes(n);
    if (reader.left() < stride * quantiser_.bits)  // before anything is made of n
      return fail(Code::kCorrupt, "eden: {} values in {} bytes", n, reader.left());
    const auto rotation = rotation_of(n, seed);
    const auto regions = regions_of(rotation, n);
    std::vector<float> scales(regions.size());
    for (auto& scale : scales) {
      scale = TRY(reader.get<float>());
      if (!std::isfinite(scale) || std::signbit(scale))
        return fail(Code::kCorrupt, "eden: a scale that is negative or not finite");
    }
    Bytes planes((stride + 2) * quantiser_.bits);
    for (std::size_t bit = 0; bit < quantiser_.bits; ++bit) {
      const auto plane = TRY(reader.take(stride));
      if (n % 8 != 0 && std::to_integer<unsigned>(plane.back()) >> n % 8 != 0)
        return fail(Code::kCorrupt, "eden: padding that is not zero");
      std::ranges::copy(plane, planes.begin() + std::ptrdiff_t(bit * (stride + 2)));
    }
    // Scales near the end of the range would overflow inside the rotation.
    const bool large = std::ranges::any_of(scales, [](float s) { return s > 0x1p100f; });
    packet.values.resize(n);
    for (std::size_t i = 0; i < regions.size(); ++i)
      dequantise_planes(quantiser_, packet.values, regions[i].begin, regions[i].end,
                        large ? scales[i] * 0x1p-40f : scales[i], planes.data(), stride + 2);
    rotation.undo(packet.values);
    if (large) multiply(packet.values, 0x1p40f);  // to the largest float at most
    packet.drop_front(reader.left());
    return {};
  }

  bool unbiased() const override { return !least_; }
  bool wants_values() const override { return true; }
  std::size_t values_left(std::size_t) const override { return 0; }
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    const auto chunk = std::max<std::size_t>(1, std::min(chunk_, std::bit_floor(values)));
    return 10 + 8 + (values / chunk + 1) * sizeof(float) + plane_bytes(values) * quantiser_.bits +
           bytes;
  }

 private:
  RandomRotation rotation_of(std::size_t n, std::uint64_t seed) const {
    RandomStream signs(seed, "eden");
    return RandomRotation(n, chunk_, signs);
  }

  /// Binary exponent of `largest` where it is far from 1, else 0.
  static int far_exponent(float largest) {
    const auto exponent = largest == 0 ? 0 : std::ilogb(largest);
    return std::abs(exponent) > 40 ? exponent : 0;
  }
  /// In two factors that are floats themselves, whatever the power.
  static void scale_by_power(std::span<float> values, int power) {
    multiply(values, std::ldexp(1.0f, power / 2));
    multiply(values, std::ldexp(1.0f, power - power / 2));
  }

  /// Codes of a region's rotated values, and the scale that they are to be multiplied with.
  double quantise(std::span<const float> y, Region region, Bytes& codes, std::size_t stride) const {
    const auto count = region.end - region.begin;
    const auto square = sum_of_squares(y.subspan(region.begin, count));
    const auto deviation = std::sqrt(square / double(count));
    const auto inverse = float(deviation > 0 ? 1 / deviation : 0);
    const auto product = quantise_planes(quantiser_, y, region.begin, region.end, inverse,
                                         codes.data(), stride);
    if (product <= 0) return 0;
    if (!least_) return deviation * double(count) / product;
    return deviation * product / level_squares(codes, region, stride);
  }

  /// <Q, Q> from how often each level occurs.
  double level_squares(const Bytes& codes, Region region, std::size_t stride) const {
    std::vector<float> levels(region.end - region.begin);
    dequantise_planes(quantiser_, levels, 0, levels.size(), 1, codes.data() + region.begin / 8,
                      stride);
    return sum_of_squares(levels);
  }

  const LloydMax& quantiser_;
  std::size_t chunk_;
  bool least_;
};

const RegisterCodec kEden{
    "eden", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      const auto options = TRY(read_settings<EdenOptions>(settings, "eden"));
      if (!std::has_single_bit(unsigned(options.chunk)))
        return fail(Code::kInvalid, "eden: chunk: {} is not a power of two", options.chunk);
      return std::make_unique<Eden>(options);
    }};

}  // namespace
}  // namespace preceptor::compression
