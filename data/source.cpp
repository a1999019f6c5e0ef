#include "data/source.h"

#include <stdexcept>

namespace preceptor::data {

Registry<Reader>& readers() {
  static Registry<Reader> registry("data reader");
  return registry;
}

Result<Source> read_source(const SourceOptions& options, std::uint64_t seed) {
  const Reader* reader = TRY(readers().find(options.kind));
  if (options.channels != 1 && options.channels != 3)
    return fail(Code::kInvalid, "data.channels: {}; 1 (grey) or 3 (RGB) are known",
                options.channels);
  auto source = TRY((*reader)(options, seed));
  const auto count = source.images.size();
  if (count == 0) return fail(Code::kInvalid, "{}: no images in it", options.path);
  if (source.images.pixels.size() != count * source.images.image_bytes() ||
      source.images.masks.size() != (source.images.segmentation ? count * source.images.mask_bytes() : 0) ||
      source.splits.size() != count || source.sites.size() != count)
    throw std::logic_error("data reader " + options.kind + ": parts of unequal length");
  return source;
}

}  // namespace preceptor::data
