// Reader "folder": PNG, JPEG and BMP files under one root. The class is the first folder's name, or
// what <root>/labels.csv says: columns file,label and, if wanted, site and split (train, val, test
// or empty).
#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "common/file.h"
#include "data/csv.h"
#include "data/files.h"
#include "data/image.h"

namespace preceptor::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxClasses = 4096;

// One image to be read.
struct Entry {
  std::string file;  // relative to the root
  std::string label, site;
  Split split = Split::kUnassigned;
};

using Names = std::set<std::string, bool (*)(const std::string&, const std::string&)>;

Result<std::vector<Entry>> list_folders(const fs::path& root) {
  std::vector<Entry> entries;
  std::error_code error;
  auto walk = fs::recursive_directory_iterator(root, error);  // does not follow links to folders
  for (; !error && walk != fs::recursive_directory_iterator(); walk.increment(error)) {
    const auto& path = walk->path();
    if (path.filename().string().starts_with('.')) {
      walk.disable_recursion_pending();
      continue;
    }
    std::error_code gone;
    if (walk.depth() == 0 || walk->is_directory(gone) || !is_image(path)) continue;
    const auto relative = path.lexically_relative(root);
    entries.push_back({relative.generic_string(), relative.begin()->string(), {}});
  }
  if (error) return fail(Code::kIo, "cannot be listed: {}", error.message());
  if (entries.empty())
    return fail(Code::kInvalid,
                "no <class>/<image>.png, .jpg, .jpeg or .bmp and no labels.csv in it");
  std::ranges::sort(entries, {}, &Entry::file);
  return entries;
}

Result<std::vector<Entry>> list_csv(const fs::path& csv) {
  const auto text = TRY(read_text(csv, kMaxCsv));
  const auto table = TRY(parse_csv(text));
  const auto file = table.column("file"), label = table.column("label");
  const auto site = table.column("site"), split = table.column("split");
  if (!file || !label)
    return fail(Code::kInvalid, "columns 'file' and 'label' are wanted; it has {}",
                fmt::join(table.header, ", "));
  std::vector<Entry> entries;
  std::map<std::string, std::size_t> lines;
  for (const auto& row : table.rows) {
    const auto where = fmt::format("line {}", row.line);
    Entry entry{fs::path(row.fields[*file]).lexically_normal().generic_string(), row.fields[*label],
                site ? row.fields[*site] : ""};
    if (entry.file.empty() || entry.label.empty())
      return fail(Code::kInvalid, "{}: file or label is empty", where);
    const auto part = split_named(split ? row.fields[*split] : "");
    if (!part) return in(where, part.error());
    entry.split = *part;
    const auto [known, fresh] = lines.emplace(entry.file, row.line);
    if (!fresh)
      return fail(Code::kInvalid, "{}: '{}' stands in line {} too", where, entry.file,
                  known->second);
    entries.push_back(std::move(entry));
  }
  return entries;
}

Result<void> read_entries(const fs::path& root, const std::vector<Entry>& entries,
                          const SourceOptions& options, Source& source) {
  auto& images = source.images;
  const auto room = options.max_bytes / images.image_bytes();
  images.pixels.reserve(std::min<std::uint64_t>(room, entries.size()) * images.image_bytes());
  for (const auto& entry : entries) {
    const auto path = TRY(below(root, entry.file));
    if (images.size() == room)
      return fail(Code::kRefused,
                  "{} images of {} bytes are over data.max_bytes ({}); raise it or take a smaller "
                  "data.image_size",
                  entries.size(), images.image_bytes(), options.max_bytes);
    const auto bytes = read_image_file(path);
    const auto decoded =
        bytes ? decode_image(*bytes, options.image_size, options.channels, images.pixels)
              : Result<void>(std::unexpected(bytes.error()));
    if (!decoded) {
      source.skipped.push_back(entry.file + ": " + decoded.error().message);
      if (source.skipped.size() > std::size_t(options.max_unreadable))
        return fail(Code::kCorrupt,
                    "over {} unreadable images (data.max_unreadable), the first is {}",
                    options.max_unreadable, source.skipped.front());
      continue;
    }
    images.labels.push_back(place(images.classes, entry.label));
    source.splits.push_back(entry.split);
    source.sites.push_back(entry.site.empty() ? -1 : place(source.site_names, entry.site));
  }
  return {};
}

Result<Source> read_root(const SourceOptions& options) {
  std::error_code error;
  const auto root = fs::canonical(options.path, error);
  if (error || !fs::is_directory(root, error)) return fail(Code::kNotFound, "no such folder");
  const auto csv = root / "labels.csv";
  auto entries = fs::exists(csv, error) ? list_csv(csv) : list_folders(root);
  if (!entries)
    return fs::exists(csv, error) ? in("labels.csv", entries.error())
                                  : std::unexpected(entries.error());

  Source source;
  source.images.height = source.images.width = options.image_size;
  source.images.channels = options.channels;
  Names classes(by_name), sites(by_name);
  for (const auto& entry : *entries) {
    classes.insert(entry.label);
    if (!entry.site.empty()) sites.insert(entry.site);
  }
  if (classes.size() > kMaxClasses)
    return fail(Code::kInvalid, "{} classes; at most {} are read", classes.size(), kMaxClasses);
  source.images.classes.assign(classes.begin(), classes.end());
  source.site_names.assign(sites.begin(), sites.end());
  if (auto read = read_entries(root, *entries, options, source); !read)
    return std::unexpected(read.error());
  return source;
}

Result<Source> read_folder(const SourceOptions& options, std::uint64_t) {
  if (options.path.empty())
    return fail(Code::kInvalid, "data.path: the folder that is to be read is missing");
  auto source = read_root(options);
  if (!source) return in(options.path, source.error());
  return source;
}

const RegisterReader kFolder{"folder", read_folder};

}  // namespace
}  // namespace preceptor::data
