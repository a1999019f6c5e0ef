#pragma once
#include <filesystem>

#include "common/bytes.h"
#include "data/source.h"

/// What the readers of folders share.
namespace preceptor::data {

inline constexpr std::uint64_t kMaxImageFile = 64 << 20, kMaxCsv = 256 << 20;  ///< bytes

/// By extension: PNG, JPEG or BMP.
bool is_image(const std::filesystem::path& path);

/// Order of names: "10" after "9", and numbers before words.
bool by_name(const std::string& a, const std::string& b);

/// Index of a name in a list that by_name sorted.
std::int32_t place(const std::vector<std::string>& names, const std::string& name);

/// What a CSV's `split` column says: train, val, test or nothing.
Result<Split> split_named(const std::string& name);

/// The file's place, if it is below the root even after links are followed. Error: kRefused.
Result<std::filesystem::path> below(const std::filesystem::path& root, const std::string& file);

/// Errors: kNotFound, kInvalid (a pipe, say), kRefused (over kMaxImageFile), kIo.
Result<Bytes> read_image_file(const std::filesystem::path& path);

}  // namespace preceptor::data
