#pragma once
#include <span>

#include "compression/update/codec.h"
#include "compression/update/fidelity.h"

namespace preceptor::compression {

/// Codecs in the order in which they encode, applied tile by tile (kTile floats), so that an update
/// is decoded and folded into a sum with the memory of one tile. An empty pipeline is plain fp32.
/// Layout: magic "PCU1", u64 floats, u32 tiles, then u32 length and the tile's bytes, for each
/// tile. Floats that no stage turned into bytes stand as varint count and raw fp32 in front of the
/// tile's bytes. A hostile peer can send non-finite floats where they travel as fp32 or 16 bits:
/// admission looks at values.
class Pipeline {
 public:
  static constexpr std::size_t kTile = 65536;  ///< floats
  static constexpr std::size_t kMaxStages = 8;

  /// One map a stage; its key "codec" names it, the other keys are that codec's own:
  /// {codec: quantize, bits: 4}. Error: kInvalid, with the stage and the known names.
  static Result<Pipeline> create(const std::vector<CodecSettings>& stages);

  /// Non-finite values are a logic_error: the caller has checked. Tile i draws from
  /// RandomStream(seed, "codec", {i}).
  Bytes encode(std::span<const float> update, std::uint64_t seed) const;

  /// Calls `fold(offset, floats)` for each tile in order. `expected` is the exact number of floats
  /// that the bytes must hold. Nothing is folded when the frame itself is broken; a broken later
  /// tile is found when it is reached, so run `check` first where a half-folded sum would be harm.
  Result<void> decode(
      std::span<const std::byte> bytes, std::size_t expected,
      const std::function<Result<void>(std::size_t, std::span<const float>)>& fold) const;
  /// All floats at once, for the node's error feedback and tests.
  Result<std::vector<float>> decode(std::span<const std::byte> bytes, std::size_t expected) const;

  /// Decodes every tile and keeps nothing.
  Result<void> check(std::span<const std::byte> bytes, std::size_t expected) const;

  /// What the stages up to each one leave of an update that `encode` is given with this seed.
  std::vector<Fidelity> fidelity(std::span<const float> update, std::uint64_t seed) const;

  bool unbiased() const;
  /// No valid encoding of `floats` floats is longer.
  std::size_t size_bound(std::size_t floats) const;

 private:
  /// The tiles' bytes, in order, once the frame around them has been found whole.
  Result<std::vector<std::span<const std::byte>>> tiles(std::span<const std::byte> bytes,
                                                        std::size_t expected) const;
  Bytes encode_tile(std::span<const float> tile, RandomStream random) const;
  Result<std::vector<float>> decode_tile(std::span<const std::byte> bytes, std::size_t count) const;
  /// Floats before the first stage, after it, … after the last, of a tile of `floats`.
  std::vector<std::size_t> floats_between(std::size_t floats) const;
  std::size_t tile_bound(std::size_t floats) const;

  std::vector<std::unique_ptr<Codec>> stages_;
  std::vector<std::string> names_;  ///< of the stages
  bool ends_in_values_ = true;  ///< the last stage leaves floats, which then travel raw
};

}  // namespace preceptor::compression
