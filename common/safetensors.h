#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace preceptor {

/// One tensor of a safetensors file. `data` borrows from the file object.
struct StoredTensor {
  std::string name;
  std::string dtype;                ///< "F32", "F16", "I64", … as the format names them
  std::vector<std::int64_t> shape;  ///< row-major
  std::span<const std::byte> data;
};

/// A safetensors file (8-byte little-endian header length, JSON header, packed tensors), read with
/// distrust: the header is capped at 16 MiB and at the file's own size, and every dtype, shape,
/// size and offset is checked (in order, no gap, no overlap, no overflow) before a tensor is handed
/// out.
/// Move-only: the tensors point into the bytes.
class SafetensorsFile {
 public:
  SafetensorsFile(SafetensorsFile&&) = default;
  SafetensorsFile& operator=(SafetensorsFile&&) = default;
  /// The file's own bytes are the only large allocation; files over max_bytes are refused unread.
  static Result<SafetensorsFile> load(const std::filesystem::path& path,
                                      std::uint64_t max_bytes = std::uint64_t{2} << 30);
  static Result<SafetensorsFile> parse(Bytes bytes);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  const StoredTensor* find(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  SafetensorsFile() = default;

  Bytes bytes_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Bytes of a file that holds these tensors, in this order.
Bytes encode_safetensors(const std::vector<StoredTensor>& tensors,
                         const std::map<std::string, std::string>& metadata);

}  // namespace preceptor
