#include "data/manifest.h"

#include "common/bytes.h"
#include "common/hash.h"

namespace preceptor::data {

std::string content_hash(const Dataset& dataset) {
  // Every part has its length in front, so that no two data sets share their bytes.
  Bytes head;
  ByteWriter writer(head);
  for (const auto extent : {dataset.height, dataset.width, dataset.channels})
    writer.put(std::int32_t(extent));
  writer.put(std::uint64_t(dataset.classes.size()));
  for (const auto& name : dataset.classes) {
    writer.put(std::uint64_t(name.size()));
    writer.put(bytes_of(name));
  }
  writer.put(std::uint64_t(dataset.size()));
  Sha256 hash;
  hash.update("preceptor data set 1\n").update(head);
  hash.update(std::as_bytes(std::span(dataset.labels)));
  hash.update(std::as_bytes(std::span(dataset.pixels)));
  if (dataset.segmentation) hash.update(std::as_bytes(std::span(dataset.masks)));
  return hex(hash.finish());
}

std::string content_hash(const Splits& splits) {
  Sha256 hash;
  hash.update("preceptor splits 1\n");
  for (const auto* part : {&splits.train, &splits.validation, &splits.test})
    hash.update(content_hash(*part));
  return hex(hash.finish());
}

}  // namespace preceptor::data
