#include "data/npz.h"

#include <zip.h>

namespace preceptor::data {
namespace {

// Most that a byte of deflate can expand to (RFC 1951: 258 bytes from 2 bits), with room for tiny
// entries.
constexpr std::uint64_t kMaxExpansion = 1032;
constexpr std::uint64_t kSlack = 4096;

std::string message(zip_error_t& error) {
  std::string text = zip_error_strerror(&error);
  zip_error_fini(&error);
  return text;
}

Result<zip*> open_source(zip_source_t* source, zip_error_t& error) {
  if (!source) return fail(Code::kIo, "{}", message(error));
  zip* archive = zip_open_from_source(source, ZIP_RDONLY | ZIP_CHECKCONS, &error);
  if (archive) return archive;
  zip_source_free(source);
  return fail(Code::kCorrupt, "not a sound zip archive ({})", message(error));
}

}  // namespace

void NpzArray::Close::operator()(zip_file* file) const { zip_fclose(file); }
void NpzFile::Close::operator()(zip* archive) const { zip_discard(archive); }

Result<void> NpzArray::read(std::span<std::byte> out) {
  while (!out.empty()) {
    const auto got = zip_fread(file_.get(), out.data(), out.size());
    if (got < 0) return fail(Code::kCorrupt, "{}", zip_file_strerror(file_.get()));
    if (got == 0) return fail(Code::kCorrupt, "truncated, {} bytes missing", out.size());
    out = out.subspan(std::size_t(got));
  }
  return {};
}

Result<void> NpzArray::finish() {
  std::byte extra;
  const auto got = zip_fread(file_.get(), &extra, 1);
  if (got < 0) return fail(Code::kCorrupt, "{}", zip_file_strerror(file_.get()));
  if (got > 0) return fail(Code::kCorrupt, "longer than it says");
  return {};
}

Result<NpzFile> NpzFile::open(const std::filesystem::path& path) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error)
    return fail(std::filesystem::exists(path, error) ? Code::kIo : Code::kNotFound,
                "cannot be opened");
  zip_error_t reason;
  zip_error_init(&reason);
  NpzFile file;
  file.archive_.reset(
      TRY(open_source(zip_source_file_create(path.c_str(), 0, -1, &reason), reason)));
  file.bytes_ = bytes;
  return file;
}

Result<NpzFile> NpzFile::parse(std::span<const std::byte> bytes) {
  zip_error_t reason;
  zip_error_init(&reason);
  NpzFile file;
  file.archive_.reset(
      TRY(open_source(zip_source_buffer_create(bytes.data(), bytes.size(), 0, &reason), reason)));
  file.bytes_ = bytes.size();
  return file;
}

std::vector<std::string> NpzFile::names() const {
  std::vector<std::string> all;
  for (zip_int64_t i = 0; i < zip_get_num_entries(archive_.get(), 0); ++i)
    if (const char* name = zip_get_name(archive_.get(), zip_uint64_t(i), 0)) all.emplace_back(name);
  return all;
}

bool NpzFile::has(const std::string& name) const {
  return zip_name_locate(archive_.get(), name.c_str(), 0) >= 0;
}

Result<NpzArray> NpzFile::array(const std::string& name) const {
  zip_stat_t entry;
  const auto place = zip_name_locate(archive_.get(), name.c_str(), 0);
  if (place < 0) return fail(Code::kNotFound, "{}: not in the archive", name);
  constexpr auto kWanted =
      ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_COMP_METHOD | ZIP_STAT_ENCRYPTION_METHOD;
  if (zip_stat_index(archive_.get(), zip_uint64_t(place), 0, &entry) != 0 ||
      (entry.valid & kWanted) != kWanted)
    return fail(Code::kCorrupt, "{}: {}", name, zip_strerror(archive_.get()));
  if (entry.encryption_method != ZIP_EM_NONE) return fail(Code::kInvalid, "{}: encrypted", name);
  if (entry.comp_method != ZIP_CM_STORE && entry.comp_method != ZIP_CM_DEFLATE)
    return fail(Code::kInvalid, "{}: compression method {}; stored and deflated are read", name,
                entry.comp_method);
  if (entry.comp_size > bytes_ ||
      entry.size / kMaxExpansion > entry.comp_size + kSlack / kMaxExpansion)
    return fail(Code::kCorrupt, "{}: {} bytes cannot come out of {}", name, entry.size,
                std::min<std::uint64_t>(entry.comp_size, bytes_));

  NpzArray array;
  array.file_.reset(zip_fopen_index(archive_.get(), zip_uint64_t(place), 0));
  if (!array.file_) return fail(Code::kCorrupt, "{}: {}", name, zip_strerror(archive_.get()));
  Bytes head(std::min<std::uint64_t>(kNpyPreamble, entry.size));
  if (auto read = array.read(head); !read) return in(name, read.error());
  const auto length = npy_header_bytes(head);
  if (!length) return in(name, length.error());
  if (*length > entry.size) return fail(Code::kCorrupt, "{}: truncated npy header", name);
  const auto known = head.size();
  head.resize(std::max(*length, known));
  if (auto read = array.read(std::span(head).subspan(known)); !read) return in(name, read.error());
  auto header = parse_npy_header(head);
  if (!header) return in(name, header.error());
  if (head.size() != *length || header->array_bytes != entry.size - *length)
    return fail(Code::kCorrupt, "{}: shape ({}) wants {} bytes, {} are there", name,
                fmt::join(header->shape, ", "), header->array_bytes, entry.size - *length);
  array.header_ = *std::move(header);
  return array;
}

}  // namespace preceptor::data
