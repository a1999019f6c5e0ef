#include "data/masks.h"

#include <algorithm>
#include <map>

#include "common/file.h"
#include "data/csv.h"
#include "data/files.h"

namespace preceptor::data {

namespace fs = std::filesystem;

namespace {

// id → path below the root of each image file in one of its folders.
Result<std::map<std::string, std::string>> files_of(const fs::path& root, const char* folder) {
  std::map<std::string, std::string> files;
  std::error_code error;
  for (auto entry = fs::directory_iterator(root / folder, error);
       !error && entry != fs::directory_iterator(); entry.increment(error)) {
    const auto& path = entry->path();
    if (!is_image(path)) continue;
    const auto relative = (fs::path(folder) / path.filename()).generic_string();
    const auto [known, fresh] = files.emplace(path.stem().string(), relative);
    if (!fresh)
      return fail(Code::kInvalid, "{} and {} are the same image's", known->second, relative);
  }
  if (error) return fail(Code::kNotFound, "{}/ cannot be listed: {}", folder, error.message());
  return files;
}

struct Facts {
  std::string site;
  Split split = Split::kUnassigned;
};

// What images.csv says of each id.
Result<std::map<std::string, Facts>> read_facts(const fs::path& csv) {
  const auto text = TRY(read_text(csv, kMaxCsv));
  const auto table = TRY(parse_csv(text));
  const auto id = table.column("id"), site = table.column("site"), split = table.column("split");
  if (!id)
    return fail(Code::kInvalid, "column 'id' is wanted; it has {}", fmt::join(table.header, ", "));
  std::map<std::string, Facts> facts;
  for (const auto& row : table.rows) {
    const auto where = fmt::format("line {}", row.line);
    const auto part = split_named(split ? row.fields[*split] : "");
    if (!part) return in(where, part.error());
    if (!facts.emplace(row.fields[*id], Facts{site ? row.fields[*site] : "", *part}).second)
      return fail(Code::kInvalid, "{}: '{}' stands twice", where, row.fields[*id]);
  }
  return facts;
}

Result<std::vector<MaskedEntry>> list_root(const fs::path& root) {
  const auto images = TRY(files_of(root, "images"));
  const auto labels = TRY(files_of(root, "labels"));
  for (const auto& [id, path] : labels)
    if (path.ends_with("g") && !path.ends_with(".png") && !path.ends_with(".PNG"))
      return fail(Code::kInvalid, "{}: JPEG does not keep labels; PNG or BMP is wanted", path);
  const auto csv = root / "images.csv";
  std::error_code error;
  std::map<std::string, Facts> facts;
  const bool told = fs::exists(csv, error);
  if (told) {
    auto read = read_facts(csv);
    if (!read) return in("images.csv", read.error());
    facts = std::move(*read);
  } else {
    for (const auto& [id, path] : images) facts.emplace(id, Facts{});
  }
  std::vector<MaskedEntry> entries;
  for (const auto& [id, fact] : facts) {
    const auto image = images.find(id), label = labels.find(id);
    if (image == images.end()) return fail(Code::kNotFound, "images/{}.png: images.csv names it", id);
    if (label == labels.end()) return fail(Code::kNotFound, "labels/{}.png: the label map is missing", id);
    TRY(below(root, image->second));  // a link out of the folder is no mere unreadable image
    TRY(below(root, label->second));
    entries.push_back({id, image->second, label->second, fact.site, fact.split});
  }
  if (entries.empty()) return fail(Code::kInvalid, "no image in images/");
  std::ranges::sort(entries, by_name, &MaskedEntry::id);
  return entries;
}

Result<LabelMap> read_labels(const fs::path& path) {
  const auto file = TRY(read_image_file(path));
  return decode_labels(file);
}

// Not merely a bad file: with fewer classes than the masks have, every image would be learned wrong.
Result<void> check_classes(const SourceOptions& options, const MaskedEntry& entry, const MaskedImage& pair) {
  const int largest = *std::ranges::max_element(pair.mask);
  if (options.classes == 0 || largest < options.classes) return {};
  return fail(Code::kInvalid, "{}: has class {}; there are {} classes, 0 … {} (data.classes)", entry.label, largest,
              options.classes, options.classes - 1);
}

// Gone wrong in a way that a single bad file may.
Result<void> append_pair(const SourceOptions& options, const MaskedImage& pair, Dataset& images) {
  const auto& shape = pair.image.shape;
  auto pixels = images.pixels.size();
  TRY(append_image(pair.image.pixels, shape, options.image_size, options.channels, images.pixels));
  const auto resized = append_mask(pair.mask, shape.height, shape.width, options.image_size, images.masks);
  if (!resized) images.pixels.resize(pixels);
  return resized;
}

Result<Source> read_pairs(const SourceOptions& options) {
  const auto entries = TRY(list_masked(options));
  Source source;
  auto& images = source.images;
  images.height = images.width = options.image_size;
  images.channels = options.channels;
  images.segmentation = true;
  for (const auto& entry : entries)
    if (!entry.site.empty()) source.site_names.push_back(entry.site);
  std::ranges::sort(source.site_names, by_name);
  source.site_names.erase(std::ranges::unique(source.site_names).begin(), source.site_names.end());
  const auto room = options.max_bytes / (images.image_bytes() + images.mask_bytes());
  for (const auto& entry : entries) {
    if (images.size() == room)
      return fail(Code::kRefused,
                  "{} images are over data.max_bytes ({}); raise it or take a smaller data.image_size",
                  entries.size(), options.max_bytes);
    const auto pair = read_masked(options, entry);
    if (pair) TRY(check_classes(options, entry, *pair));
    if (const auto appended = pair ? append_pair(options, *pair, images) : std::unexpected(pair.error()); !appended) {
      source.skipped.push_back(entry.image + ": " + appended.error().message);
      if (source.skipped.size() > std::size_t(options.max_unreadable))
        return fail(Code::kCorrupt, "over {} unreadable images (data.max_unreadable), the first is {}",
                    options.max_unreadable, source.skipped.front());
      continue;
    }
    images.labels.push_back(0);
    source.splits.push_back(entry.split);
    source.sites.push_back(entry.site.empty() ? -1 : place(source.site_names, entry.site));
  }
  images.classes = {"background"};
  if (options.masks == "instance") {
    images.classes.push_back("object");
  } else {
    const int last = images.masks.empty() ? 0 : *std::ranges::max_element(images.masks);
    const int classes = options.classes > 0 ? options.classes : std::max(last, 1) + 1;
    for (int c = 1; c < classes; ++c) images.classes.push_back(fmt::format("class-{}", c));
  }
  return source;
}

Result<Source> read_masks(const SourceOptions& options, std::uint64_t) {
  if (options.path.empty())
    return fail(Code::kInvalid, "data.path: the folder with images/ and labels/ is missing");
  if (options.classes > 0 && options.masks == "instance")
    return fail(Code::kInvalid, "data.classes: {} is for data.masks: class; instance has two, background and object", options.classes);
  if (options.classes == 1)
    return fail(Code::kInvalid, "data.classes: 1; the background and one class, 2, are the least");
  auto source = read_pairs(options);
  if (!source) return in(options.path, source.error());
  return source;
}

const RegisterReader kMasks{"masks", read_masks};

}  // namespace

Result<std::vector<MaskedEntry>> list_masked(const SourceOptions& options) {
  std::error_code error;
  const auto root = fs::canonical(options.path, error);
  if (error || !fs::is_directory(root, error)) return fail(Code::kNotFound, "no such folder");
  return list_root(root);
}

Result<MaskedImage> read_masked(const SourceOptions& options, const MaskedEntry& entry) {
  std::error_code error;
  const auto root = fs::canonical(options.path, error);
  const auto image_path = TRY(below(root, entry.image));
  const auto label_path = TRY(below(root, entry.label));
  const auto image_file = TRY(read_image_file(image_path));
  MaskedImage pair{TRY(decode_whole(image_file, options.channels)), {}};
  const auto map = read_labels(label_path);
  if (!map) return in("its label map", map.error());
  if (map->height != pair.image.shape.height || map->width != pair.image.shape.width)
    return fail(Code::kCorrupt, "its label map has {} × {} pixels, it has {} × {}", map->width, map->height,
                pair.image.shape.width, pair.image.shape.height);
  pair.mask.reserve(map->labels.size());
  for (const auto label : map->labels) {
    if (options.masks == "class" && label > 255)
      return fail(Code::kCorrupt, "class {} in its label map; with data.masks: class there are 256 at most", label);
    pair.mask.push_back(options.masks == "class" ? std::uint8_t(label) : label > 0);
  }
  return pair;
}

}  // namespace preceptor::data
