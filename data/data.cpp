#include "data/data.h"

namespace preceptor::data {

Result<Federation> load(const DataOptions& options, std::uint64_t seed) {
  auto source = TRY(read_source(options, seed));
  return federate(std::move(source), options.partition, seed);
}

}  // namespace preceptor::data
