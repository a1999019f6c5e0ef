// Bytes of a .npz archive and of a bare .npy header, read as the medmnist reader does.
#include <unistd.h>

#include "data/npz.h"
#include "fuzz/fuzz.h"
#include "tests/data/made.h"

using namespace preceptor;
using namespace preceptor::data;

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  const auto images = npy("|u1", "(5, 4, 4)", std::string(80, '\1'));
  const auto labels = npy("<i8", "(5, 1)", std::string(40, '\0'));
  all.emplace_back(images.begin(), images.end());
  const auto path =
      std::filesystem::temp_directory_path() / ("npz_fuzz." + std::to_string(::getpid()));
  for (const bool deflate : {false, true}) {
    write_zip(path, {{"train_images.npy", images}, {"train_labels.npy", labels}}, deflate);
    const auto bytes = slurp(path);
    all.emplace_back(bytes.begin(), bytes.end());
  }
  std::filesystem::remove(path);
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto header = parse_npy_header(bytes)) {
    const auto body = bytes.subspan(header->header_bytes);
    if (body.size() >= header->item_bytes) (void)npy_integer(*header, body);
  }
  const auto file = NpzFile::parse(bytes);
  if (!file) return 0;
  for (const auto& name : file->names()) {
    auto array = file->array(name);
    if (!array) continue;
    if (array->header().array_bytes > size * 1032 + 8192) __builtin_trap();  // what npz.h promises
    Bytes body(array->header().array_bytes);
    if (array->read(body)) (void)array->finish();
  }
  return 0;
}
