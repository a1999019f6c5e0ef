#include "compression/update/codec.h"

namespace preceptor::compression {

Registry<CodecFactory>& codecs() {
  static Registry<CodecFactory> registry("codec");
  return registry;
}

}  // namespace preceptor::compression
