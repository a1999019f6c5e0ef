#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>

#include "common/options.h"
#include "compression/update/codec.h"
#include "compression/update/hadamard.h"
#include "compression/update/lloyd_max.h"
#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

struct EdenOptions {
  int bits = 2;                    ///< a value: 1 to 4
  int chunk = 8192;                ///< values rotated together; a power of two
  std::string scale = "unbiased";  ///< least: smallest error, biased; for error feedback
  template <class V>
  void visit(V& v) {
    v("bits", bits, Range{1, 4});
    v("chunk", chunk, Range{64, double(kMaxHadamard)});
    v("scale", scale, OneOf{"unbiased", "least"});
  }
};

constexpr float kLargest = std::numeric_limits<float>::max();

/// Share of a chunk's energy that one value may have for one rotation to do.
constexpr double kConcentrated = 1.0 / 16;

/// Values that share a scale: those that left a chunk's transform last.
struct Region {
  std::size_t begin, end;
  bool twice = false;                                   ///< its chunk was rotated two times
  std::size_t step() const { return begin / 16 * 16; }  ///< where quantise_planes can begin
};

/// The rotation of a tile, each chunk once or, as its region says, twice, with signs of its own.
class TileRotation {
 public:
  TileRotation(std::size_t n, std::size_t chunk, std::uint64_t seed)
      : n_(n), chunk_(chunk), seed_(seed), once_(rotation("eden")) {
    for (const auto start : once_.starts()) {
      if (!regions_.empty()) regions_.back().end = start;
      regions_.push_back({start, n});
    }
  }
  std::vector<Region>& regions() { return regions_; }

  /// Before apply: looks where one of `values` has much of the energy, and returns the largest
  /// magnitude of all. A last chunk that overlaps the one before it is judged by what is its own.
  float judge(std::span<const float> values) {
    float largest = 0;
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      const auto begin = i * once_.chunk();
      const auto own = peak(values.subspan(begin, std::min(once_.chunk(), n_ - begin)));
      regions_[i].twice = double(own.largest) * own.largest > kConcentrated * own.squares;
      largest = std::max(largest, own.largest);
    }
    return largest;
  }
  void apply(std::span<float> values) {
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      once_.apply(values, i);
      if (regions_[i].twice) again().apply(values, i);
    }
  }
  void undo(std::span<float> values) {
    for (auto i = regions_.size(); i-- > 0;) {
      if (regions_[i].twice) again().undo(values, i);
      once_.undo(values, i);
    }
  }

 private:
  RandomRotation rotation(const char* name) const {
    RandomStream signs(seed_, name);
    return RandomRotation(n_, chunk_, signs);
  }
  const RandomRotation& again() {  // rarely needed
    if (!again_) again_ = rotation("eden, again");
    return *again_;
  }

  std::size_t n_, chunk_;
  std::uint64_t seed_;
  RandomRotation once_;
  std::optional<RandomRotation> again_;
  std::vector<Region> regions_;  ///< of each chunk
};

/// EDEN (Vargaftik 2022, arXiv:2108.08842; at one bit DRIVE, 2021, arXiv:2105.08339): the tile is
/// rotated at random, so that its values are close to Gaussian whatever they were, quantised to the
/// Lloyd-Max levels of a Gaussian, and scaled a chunk by |y|² / <y, Q(y)>. The normalised squared
/// error is D / (1 - D), D the quantiser's: 0.571, 0.133, 0.0358 and 0.0096 at 1 to 4 bits.
///
/// That scale makes the estimate unbiased when the rotation is uniformly random. Hadamard's is not:
/// where value j has a share r_j of its chunk's energy and k = Σ r_j², one bit leaves a bias of
/// x_j (r_j - k) / 3 to first order, so |bias| <= max r |x| / 6; more bits leave less of small r.
/// Of two or three unequal nonzeros one bit would leave 0.5 to 0.7 |x|, whatever n. So a chunk in
/// which one value has over 1/16 of the energy is rotated a second time, after which r is about 1 /
/// n. Measured: at most 0.011 |x| of what was rotated once; of what was rotated twice 0.02 |x| for
/// chunks of 64, 0.003 of 256, and 0.002 from 1024 on, where rounding decides ties.
///
/// Layout: varint n, u64 seed of the signs, fp32 scale a chunk, negative where it was rotated
/// twice, then the planes of the codes. With scale "least", which is biased anyway, none is.
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
    TileRotation rotation(n, chunk_, seed);
    // Sums of squares stay in range: only a tile far from 1 is brought there, by a power of two.
    const auto judge = [&] { return least_ ? largest_magnitude(values) : rotation.judge(values); };
    const auto exponent = far_exponent(judge());
    if (exponent != 0) {
      scale_by_power(values, -exponent);
      judge();
    }
    rotation.apply(values);

    const auto& regions = rotation.regions();
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
      const auto size = float(std::min(scale, double(kLargest)));
      const auto sent = regions[i].twice ? -size : size;
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
    TileRotation rotation(n, chunk_, seed);
    auto& regions = rotation.regions();
    std::vector<float> scales(regions.size());
    for (std::size_t i = 0; i < regions.size(); ++i) {
      const auto sent = TRY(reader.get<float>());
      regions[i].twice = std::signbit(sent);
      if (!std::isfinite(sent) || (least_ && regions[i].twice))
        return fail(Code::kCorrupt, "eden: a scale that is not finite, or negative");
      scales[i] = std::abs(sent);
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
    for (auto i = regions.size(); i-- > 0;)  // a region writes to where the one before it ends
      dequantise_planes(quantiser_, packet.values, regions[i].step(), regions[i].end,
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
  double quantise(std::span<float> y, Region region, Bytes& codes, std::size_t stride) const {
    const auto count = region.end - region.begin;
    const auto square = sum_of_squares(y.subspan(region.begin, count));
    const auto deviation = std::sqrt(square / double(count));
    const auto inverse = float(deviation > 0 ? 1 / deviation : 0);
    const auto product = write_codes(y, region, inverse, codes, stride);
    if (product <= 0) return 0;
    if (!least_) return deviation * double(count) / product;
    return deviation * product / level_squares(codes, region, stride);
  }

  /// As quantise_planes. The values that its first step shares with the region before, coded
  /// already, become zeros, whose codes are zeros, too.
  double write_codes(std::span<float> y, Region region, float inverse, Bytes& codes,
                     std::size_t stride) const {
    std::array<std::uint16_t, 4> before{};
    const auto word = [&](std::size_t bit) {
      return codes.data() + bit * stride + region.step() / 8;
    };
    for (std::size_t bit = 0; bit < quantiser_.bits; ++bit) std::memcpy(&before[bit], word(bit), 2);
    std::ranges::fill(y.subspan(region.step(), region.begin - region.step()), 0.0f);
    const auto product =
        quantise_planes(quantiser_, y, region.step(), region.end, inverse, codes.data(), stride);
    for (std::size_t bit = 0; bit < quantiser_.bits; ++bit) {
      std::uint16_t own;
      std::memcpy(&own, word(bit), 2);
      own |= before[bit];
      std::memcpy(word(bit), &own, 2);
    }
    return product;
  }

  /// <Q, Q> from how often each level occurs.
  double level_squares(const Bytes& codes, Region region, std::size_t stride) const {
    std::vector<float> levels(region.end - region.step());
    dequantise_planes(quantiser_, levels, 0, levels.size(), 1, codes.data() + region.step() / 8,
                      stride);
    return sum_of_squares(std::span(levels).subspan(region.begin - region.step()));
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
