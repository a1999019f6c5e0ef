#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "common/options.h"
#include "compression/update/bits.h"
#include "compression/update/codec.h"
#include "compression/update/selection.h"

namespace preceptor::compression {
namespace {

struct TopKOptions {
  double fraction = 0.1;  ///< of the tile's values that are sent; (0, 1]
  template <class V>
  void visit(V& v) {
    v("fraction", fraction, Range{1e-9, 1});
  }
};

constexpr unsigned kMaxRice = 20;  ///< of a gap; a tile has fewer places than 2^20

std::size_t varint_bytes(std::uint64_t value) { return (std::bit_width(value | 1) + 6) / 7; }

/// Gaps (how many are left out before each kept value) by the Rice parameter that makes them
/// shortest, or the first that no next one betters.
void write_gaps(const std::vector<std::uint32_t>& gaps, Bytes& out) {
  unsigned parameter = 0;
  auto best = std::numeric_limits<std::uint64_t>::max();
  for (unsigned k = 0; k <= kMaxRice; ++k) {
    std::uint64_t bits = gaps.size() * (k + 1);
    for (const auto gap : gaps) bits += gap >> k;
    if (bits > best) break;  // it only grows from there
    best = bits, parameter = k;
  }
  out.push_back(std::byte(parameter));
  BitWriter writer(out);
  for (const auto gap : gaps) writer.rice(gap, parameter);
  writer.finish();
}

/// Keeps the ceil(fraction * n) values of largest magnitude, the earlier one of equals, as floats
/// for later stages (Aji and Heafield 2017, arXiv:1704.05021). Biased: without error feedback small
/// values never arrive. Layout: varint n, u8 Rice parameter, gaps; the kept values' number is that
/// of the packet's floats.
class TopK : public Codec {
 public:
  explicit TopK(const TopKOptions& options) : fraction_(options.fraction) {}

  void encode(Packet& packet, RandomStream&) const override {
    const auto n = packet.values.size();
    Bytes head;
    ByteWriter(head).varint(n);
    std::vector<float> kept;
    std::vector<std::uint32_t> gaps;
    if (n > 0) {
      std::uint32_t next = 0;
      for (const auto place : largest_places(packet.values, values_left(n))) {
        kept.push_back(packet.values[place]);
        gaps.push_back(place - next);
        next = place + 1;
      }
    }
    write_gaps(gaps, head);
    packet.put_front(std::move(head));
    packet.values = std::move(kept);
  }

  Result<void> decode(Packet& packet, std::size_t max_values) const override {
    ByteReader reader(packet.bytes);
    const auto n = TRY(reader.varint());
    const auto parameter = TRY(reader.get<std::uint8_t>());
    const auto& kept = packet.values;
    if (n > max_values || kept.size() != values_left(n))
      return fail(Code::kCorrupt, "topk: {} of {} values, in a tile of {}", kept.size(), n,
                  max_values);
    if (parameter > kMaxRice) return fail(Code::kCorrupt, "topk: Rice parameter {}", parameter);
    std::vector<float> all(n);
    BitReader gaps(std::span(packet.bytes).last(reader.left()));
    for (std::size_t i = 0, next = 0; i < kept.size(); ++i, ++next) {
      const auto room = n - next - (kept.size() - i);  // each later value needs a place
      next += TRY(gaps.rice(parameter, room));
      all[next] = kept[i];
    }
    packet.drop_front(reader.left() - TRY(gaps.finish()));
    packet.values = std::move(all);
    return {};
  }

  bool unbiased() const override { return fraction_ == 1; }
  bool wants_values() const override { return true; }
  std::size_t values_left(std::size_t values) const override {
    return std::min(values, std::size_t(std::ceil(fraction_ * double(values))));
  }
  /// With parameter 0 the gaps are a bitmap of n bits, and no code longer than that is chosen.
  std::size_t size_bound(std::size_t values, std::size_t bytes) const override {
    return varint_bytes(values) + 1 + (values + 7) / 8 + bytes;
  }

 private:
  double fraction_;
};

const RegisterCodec kTopK{
    "topk", [](const CodecSettings& settings) -> Result<std::unique_ptr<Codec>> {
      return std::make_unique<TopK>(TRY(read_settings<TopKOptions>(settings, "topk")));
    }};

}  // namespace
}  // namespace preceptor::compression
