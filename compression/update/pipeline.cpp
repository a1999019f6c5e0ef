#include "compression/update/pipeline.h"

#include <algorithm>

#include "compression/update/passes.h"

namespace preceptor::compression {
namespace {

constexpr std::uint32_t kMagic = 0x31554350;  // "PCU1"
constexpr std::size_t kFrameHeader = 4 + 8 + 4, kTileHeader = 4, kMaxVarint = 10;

std::size_t tiles_of(std::size_t floats) {
  return (floats + Pipeline::kTile - 1) / Pipeline::kTile;
}

/// Floats in tile `index` of an update of `floats`.
std::size_t tile_size(std::size_t index, std::size_t floats) {
  return std::min(Pipeline::kTile, floats - index * Pipeline::kTile);
}

void put_raw(Packet& packet) {
  Bytes head;
  head.reserve(kMaxVarint + packet.values.size() * sizeof(float) + packet.bytes.size());
  ByteWriter writer(head);
  writer.varint(packet.values.size());
  writer.put(std::as_bytes(std::span(packet.values)));
  packet.put_front(std::move(head));
  packet.values.clear();
}

Result<void> take_raw(Packet& packet, std::size_t max_values) {
  ByteReader reader(packet.bytes);
  const auto count = TRY(reader.varint());
  if (count > max_values)
    return fail(Code::kCorrupt, "{} floats in a tile of {}", count, max_values);
  const auto raw = TRY(reader.take(count * sizeof(float)));
  packet.values.resize(count);
  std::ranges::copy(raw, std::as_writable_bytes(std::span(packet.values)).begin());
  packet.drop_front(reader.left());
  return {};
}

}  // namespace

Result<Pipeline> Pipeline::create(const std::vector<CodecSettings>& stages) {
  if (stages.size() > kMaxStages)
    return fail(Code::kInvalid, "{} stages; at most {} are allowed", stages.size(), kMaxStages);
  Pipeline pipeline;
  std::size_t left = kTile;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    auto settings = stages[i];
    const auto name = settings.extract("codec");
    const auto where = fmt::format("stage {} ({})", i + 1, name ? name.mapped() : "?");
    if (!name)
      return fail(Code::kInvalid, "{}: wants a key 'codec', one of: {}", where,
                  fmt::join(codecs().names(), ", "));
    const auto factory = codecs().find(name.mapped());
    if (!factory) return in(where, factory.error());
    auto codec = (**factory)(settings);
    if (!codec) return in(where, codec.error());
    if (left == 0 && (*codec)->wants_values())
      return fail(Code::kInvalid,
                  "{}: an earlier stage turned every float into bytes; place it before that one",
                  where);
    left = left == 0 ? 0 : (*codec)->values_left(left);
    pipeline.stages_.push_back(std::move(*codec));
    pipeline.names_.push_back(name.mapped());
  }
  pipeline.ends_in_values_ = left != 0;
  return pipeline;
}

Bytes Pipeline::encode_tile(std::span<const float> tile, RandomStream random) const {
  Packet packet{{tile.begin(), tile.end()}, {}};
  for (const auto& stage : stages_) stage->encode(packet, random);
  if (ends_in_values_) put_raw(packet);
  return std::move(packet.bytes);
}

Bytes Pipeline::encode(std::span<const float> update, std::uint64_t seed) const {
  if (!all_finite(update))
    throw std::logic_error("Pipeline::encode: a value is not finite");
  Bytes out;
  ByteWriter writer(out);
  writer.put(kMagic);
  writer.put(std::uint64_t(update.size()));
  writer.put(std::uint32_t(tiles_of(update.size())));
  for (std::size_t i = 0; i < tiles_of(update.size()); ++i) {
    const auto tile = encode_tile(update.subspan(i * kTile, tile_size(i, update.size())),
                                  RandomStream(seed, "codec", {i}));
    if (i == 0)  // the others will be about as long
      out.reserve(out.size() + tiles_of(update.size()) * (kTileHeader + tile.size() * 17 / 16));
    writer.put(std::uint32_t(tile.size()));
    writer.put(tile);
  }
  return out;
}

Result<std::vector<std::span<const std::byte>>> Pipeline::tiles(std::span<const std::byte> bytes,
                                                                std::size_t expected) const {
  ByteReader reader(bytes);
  if (TRY(reader.get<std::uint32_t>()) != kMagic)
    return fail(Code::kCorrupt, "not an encoded update");
  const auto floats = TRY(reader.get<std::uint64_t>());
  const auto count = TRY(reader.get<std::uint32_t>());
  if (floats != expected || count != tiles_of(expected))
    return fail(Code::kCorrupt, "an update of {} floats in {} tiles; {} floats in {} are expected",
                floats, count, expected, tiles_of(expected));
  if (reader.left() / kTileHeader < count)
    return fail(Code::kCorrupt, "truncated: {} tiles in {} bytes", count, reader.left());
  std::vector<std::span<const std::byte>> found;
  found.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto length = TRY(reader.get<std::uint32_t>());
    if (length > tile_bound(tile_size(i, expected)))
      return fail(Code::kCorrupt, "tile {}: {} bytes are more than its codecs ever need", i,
                  length);
    found.push_back(TRY(reader.take(length)));
  }
  if (reader.left() != 0)
    return fail(Code::kCorrupt, "{} bytes after the last tile", reader.left());
  return found;
}

Result<std::vector<float>> Pipeline::decode_tile(std::span<const std::byte> bytes,
                                                 std::size_t count) const {
  const auto counts = floats_between(count);
  Packet packet{{}, {bytes.begin(), bytes.end()}};
  if (ends_in_values_) TRY(take_raw(packet, count));
  // How many floats leave each stage is known, so that a peer cannot hide some which a stage drops.
  for (auto i = stages_.size();; --i) {
    if (packet.values.size() != counts[i])
      return fail(Code::kCorrupt, "{} floats after stage {}, {} expected", packet.values.size(), i,
                  counts[i]);
    if (i == 0) break;
    TRY(stages_[i - 1]->decode(packet, count));
  }
  if (!packet.bytes.empty()) return fail(Code::kCorrupt, "{} bytes left over", packet.bytes.size());
  return std::move(packet.values);
}

Result<void> Pipeline::decode(
    std::span<const std::byte> bytes, std::size_t expected,
    const std::function<Result<void>(std::size_t, std::span<const float>)>& fold) const {
  const auto encoded = TRY(tiles(bytes, expected));
  for (std::size_t i = 0; i < encoded.size(); ++i) {
    const auto values = decode_tile(encoded[i], tile_size(i, expected));
    if (!values) return in(fmt::format("tile {}", i), values.error());
    TRY(fold(i * kTile, *values));
  }
  return {};
}

Result<std::vector<float>> Pipeline::decode(std::span<const std::byte> bytes,
                                            std::size_t expected) const {
  std::vector<float> all;
  TRY(decode(bytes, expected, [&](std::size_t, std::span<const float> tile) -> Result<void> {
    if (all.empty()) all.reserve(expected);
    all.insert(all.end(), tile.begin(), tile.end());
    return {};
  }));
  return all;
}

Result<void> Pipeline::check(std::span<const std::byte> bytes, std::size_t expected) const {
  return decode(bytes, expected,
                [](std::size_t, std::span<const float>) -> Result<void> { return {}; });
}

bool Pipeline::unbiased() const {
  return std::ranges::all_of(stages_, [](const auto& stage) { return stage->unbiased(); });
}

std::vector<std::size_t> Pipeline::floats_between(std::size_t floats) const {
  std::vector<std::size_t> counts{floats};
  for (const auto& stage : stages_)
    counts.push_back(counts.back() == 0 ? 0 : stage->values_left(counts.back()));
  return counts;
}

std::size_t Pipeline::tile_bound(std::size_t floats) const {
  const auto counts = floats_between(floats);
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < stages_.size(); ++i) bytes = stages_[i]->size_bound(counts[i], bytes);
  return ends_in_values_ ? kMaxVarint + counts.back() * sizeof(float) + bytes : bytes;
}

std::size_t Pipeline::size_bound(std::size_t floats) const {
  const auto whole = floats / kTile, rest = floats % kTile;
  return kFrameHeader + whole * (kTileHeader + tile_bound(kTile)) +
         (rest ? kTileHeader + tile_bound(rest) : 0);
}

}  // namespace preceptor::compression
