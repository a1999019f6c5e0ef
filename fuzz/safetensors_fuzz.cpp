// SafetensorsFile::parse: what it accepts lies inside the file and can be written again.
#include <cstdlib>

#include "common/safetensors.h"
#include "fuzz/fuzz.h"

using namespace preceptor;

std::vector<std::vector<std::uint8_t>> seeds() {
  const float weights[] = {1, 2, 3, 4, 5, 6};
  const auto data = std::as_bytes(std::span(weights));
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto& bytes :
       {encode_safetensors({}, {}),
        encode_safetensors({{"a", "F32", {2, 3}, data}, {"b", "U8", {24}, data}},
                           {{"format", "pt"}}),
        encode_safetensors({{"s", "I64", {}, data.first(8)}, {"none", "F16", {0}, {}}}, {})}) {
    auto& seed = all.emplace_back();
    for (const auto b : bytes) seed.push_back(std::to_integer<std::uint8_t>(b));
  }
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = SafetensorsFile::parse({bytes.begin(), bytes.end()});
  if (!file) return 0;
  std::size_t total = 0;
  for (const auto& tensor : file->tensors()) {
    total += tensor.data.size();
    if (file->find(tensor.name) == nullptr) std::abort();
  }
  if (total > size) std::abort();
  const auto again = SafetensorsFile::parse(encode_safetensors(file->tensors(), file->metadata()));
  if (!again || again->tensors().size() != file->tensors().size()) std::abort();
  return 0;
}
