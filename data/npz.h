#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "data/npy.h"

struct zip;
struct zip_file;

namespace preceptor::data {

/// One array of an .npz archive, read from front to back, so that only what the caller keeps is in
/// memory. Must not outlive its archive.
class NpzArray {
 public:
  const NpyHeader& header() const { return header_; }
  /// The next out.size() bytes. Errors: kCorrupt when the archive's data ends or breaks before.
  Result<void> read(std::span<std::byte> out);
  /// Call after the last byte: kCorrupt when more follows or the entry's CRC-32 is wrong.
  Result<void> finish();

 private:
  friend class NpzFile;
  struct Close {
    void operator()(zip_file* file) const;
  };
  std::unique_ptr<zip_file, Close> file_;
  NpyHeader header_;
};

/// A zip archive of .npy files (numpy.savez, savez_compressed), read with distrust: an array's
/// header, its entry's stated size and what deflate can at most produce from the compressed bytes
/// must agree before the caller sees the header, so header().array_bytes is at most 1032 times the
/// archive. One thread at a time.
class NpzFile {
 public:
  /// Errors: kNotFound, kIo; kCorrupt when it is no sound zip archive.
  static Result<NpzFile> open(const std::filesystem::path& path);
  /// The same over bytes that outlive the object.
  static Result<NpzFile> parse(std::span<const std::byte> bytes);

  std::vector<std::string> names() const;
  bool has(const std::string& name) const;
  /// Entry `name` ("train_images.npy"). Errors: kNotFound; those of parse_npy_header; kCorrupt when
  /// the sizes contradict each other; kInvalid when it is encrypted or neither stored nor deflated.
  Result<NpzArray> array(const std::string& name) const;

 private:
  struct Close {
    void operator()(zip* archive) const;
  };
  std::unique_ptr<zip, Close> archive_;
  std::uint64_t bytes_ = 0;  // of the whole archive
};

}  // namespace preceptor::data
