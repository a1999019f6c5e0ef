#pragma once
#include <zip.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "data/source.h"

namespace preceptor::data {

inline SourceOptions source_options(const std::string& kind, const std::string& path,
                                    int image_size = 28) {
  SourceOptions options;
  options.kind = kind;
  options.path = path;
  options.image_size = image_size;
  return options;
}

/// A source of `count` different 4×4 images, of classes 0 … classes-1 in turn, all of one split.
inline Source made_source(std::size_t count, std::size_t classes, Split split = Split::kUnassigned,
                          std::uint32_t first = 0) {
  Source source;
  source.images.height = source.images.width = 4;
  source.images.channels = 1;
  for (std::size_t c = 0; c < classes; ++c)
    source.images.classes.push_back("class-" + std::to_string(c));
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t tag = first + std::uint32_t(i);  // makes every image another
    for (std::size_t byte = 0; byte < 16; ++byte)
      source.images.pixels.push_back(byte < 4 ? std::uint8_t(tag >> (8 * byte)) : 7);
    source.images.labels.push_back(std::int32_t(i % classes));
  }
  source.splits.assign(count, split);
  source.sites.assign(count, -1);
  return source;
}

/// Puts the images of `more` behind those of `source`.
inline void join(Source& source, const Source& more) {
  source.images.append(more.images);
  source.splits.insert(source.splits.end(), more.splits.begin(), more.splits.end());
  source.sites.insert(source.sites.end(), more.sites.begin(), more.sites.end());
}

/// A .npy file of version 1 as numpy writes it, around any body.
inline std::string npy(const std::string& descr, const std::string& shape, const std::string& body,
                       const std::string& fortran = "False") {
  std::string text =
      "{'descr': '" + descr + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
  text.append(63 - (10 + text.size()) % 64, ' ').push_back('\n');
  const auto length = text.size();
  return std::string("\x93NUMPY\x01\x00", 8) + char(length & 255) + char(length >> 8) + text + body;
}

using Entries = std::vector<std::pair<std::string, std::string>>;

/// A zip archive of these files, deflated or stored.
inline void write_zip(const std::filesystem::path& path, const Entries& entries,
                      bool deflate = true) {
  int error = 0;
  zip_t* archive = zip_open(path.c_str(), ZIP_CREATE | ZIP_TRUNCATE, &error);
  for (const auto& [name, content] : entries) {
    auto* source = zip_source_buffer(archive, content.data(), content.size(), 0);
    const auto place = zip_file_add(archive, name.c_str(), source, ZIP_FL_OVERWRITE);
    zip_set_file_compression(archive, zip_uint64_t(place), deflate ? ZIP_CM_DEFLATE : ZIP_CM_STORE,
                             9);
  }
  if (zip_close(archive) != 0) throw std::runtime_error("cannot write " + path.string());
}

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void spill(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

}  // namespace preceptor::data
