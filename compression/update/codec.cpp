#include "compression/update/codec.h"

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

}  // namespace preceptor::compression
