#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "common/bytes.h"

namespace preceptor {

/// The whole file; refused before any allocation when it is larger than max_bytes.
Result<Bytes> read_file(const std::filesystem::path& path, std::uint64_t max_bytes);
Result<std::string> read_text(const std::filesystem::path& path, std::uint64_t max_bytes);

/// Writes beside the target, syncs and renames: a reader sees the old file or the new one, never
/// half. `mode` is the POSIX permission of the new file; 0600 for secrets.
Result<void> write_file(const std::filesystem::path& path, std::span<const std::byte> bytes,
                        int mode = 0644);
Result<void> write_file(const std::filesystem::path& path, std::string_view text, int mode = 0644);

}  // namespace preceptor
