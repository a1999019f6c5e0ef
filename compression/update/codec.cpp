#include "compression/update/codec.h"

#include "common/half.h"
#include "compression/update/transform.h"

namespace preceptor::compression {

Registry<CodecFactory>& codecs() {
  static Registry<CodecFactory> registry("codec");
  return registry;
}

Registry<TransformFactory>& transforms() {
  static Registry<TransformFactory> registry("transform");
  return registry;
}

Result<std::size_t> take_count(ByteReader& reader, std::size_t max_values, const char* codec) {
  const auto count = TRY(reader.varint());
  if (count > max_values)
    return fail(Code::kCorrupt, "{}: {} values in a tile of {}", codec, count, max_values);
  return count;
}

Result<float> scale_at(std::span<const std::byte> scales, std::size_t i, const char* codec) {
  std::uint16_t bits;
  std::memcpy(&bits, scales.data() + i * sizeof bits, sizeof bits);
  if (bits > 0x7f7f)
    return fail(Code::kCorrupt, "{}: a scale that is negative or not finite", codec);
  return from_bf16(bits);
}

}  // namespace preceptor::compression
