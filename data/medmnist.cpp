// Reader "medmnist": the .npz layout of MedMNIST v2 (Yang 2023, doi:10.1038/s41597-022-01721-8),
// with arrays {train,val,test}_{images,labels}; images uint8 (N, H, W) or (N, H, W, 3), one class a
// image.
#include <algorithm>
#include <filesystem>
#include <map>

#include "data/image.h"
#include "data/npz.h"

namespace preceptor::data {
namespace {

constexpr std::int64_t kMaxClasses = 4096;
constexpr std::uint64_t kMaxSide = 1 << 14;

// Class names by file name, from MedMNIST's info.py, where the classes are few; others get numbers.
const std::map<std::string, std::vector<std::string>> kClassNames{
    {"pneumoniamnist", {"normal", "pneumonia"}},
    {"breastmnist", {"malignant", "normal, benign"}},
    {"octmnist", {"choroidal neovascularization", "diabetic macular edema", "drusen", "normal"}},
};

std::vector<std::string> class_names(const std::string& stem, std::size_t count) {
  for (const auto& [set, names] : kClassNames)
    if (stem.starts_with(set) && names.size() == count) return names;
  std::vector<std::string> names;
  for (std::size_t c = 0; c < count; ++c) names.push_back(fmt::format("class-{}", c));
  return names;
}

Result<ImageShape> image_shape(const NpyHeader& header) {
  const auto& shape = header.shape;
  if (header.kind != 'u' || header.item_bytes != 1)
    return fail(Code::kInvalid, "holds {}{}; images are uint8", header.kind, header.item_bytes);
  const bool grey = shape.size() == 3 || (shape.size() == 4 && shape[3] == 1);
  if (!grey && !(shape.size() == 4 && shape[3] == 3))
    return fail(Code::kInvalid,
                "shape ({}); images (N, H, W) or (N, H, W, 3) are read, volumes (3-D sets) are not",
                fmt::join(shape, ", "));
  if (shape[1] < 1 || shape[1] > kMaxSide || shape[2] < 1 || shape[2] > kMaxSide)
    return fail(Code::kInvalid, "images of {} × {} pixels; 1 to {} are read", shape[1], shape[2],
                kMaxSide);
  return ImageShape{int(shape[1]), int(shape[2]), grey ? 1 : 3};
}

Result<std::size_t> read_images(NpzArray& array, const SourceOptions& options, Dataset& images) {
  const auto shape = TRY(image_shape(array.header()));
  const auto count = array.header().shape[0];
  const auto room =
      (options.max_bytes - std::min<std::uint64_t>(options.max_bytes, images.pixels.size())) /
      images.image_bytes();
  if (count > room)
    return fail(Code::kRefused,
                "{} images of {} bytes are over data.max_bytes ({}); raise it or take a smaller "
                "data.image_size",
                count, images.image_bytes(), options.max_bytes);
  images.pixels.reserve(images.pixels.size() + count * images.image_bytes());
  std::vector<std::uint8_t> one(std::size_t(shape.height) * shape.width * shape.channels);
  for (std::uint64_t i = 0; i < count; ++i) {
    if (auto read = array.read(std::as_writable_bytes(std::span(one))); !read)
      return std::unexpected(read.error());
    if (auto added = append_image(one, shape, options.image_size, options.channels, images.pixels);
        !added)
      return std::unexpected(added.error());
  }
  if (auto end = array.finish(); !end) return std::unexpected(end.error());
  return std::size_t(count);
}

Result<void> read_labels(NpzArray& array, std::size_t images, std::vector<std::int32_t>& labels) {
  const auto& header = array.header();
  const auto& shape = header.shape;
  if (shape.size() == 2 && shape[1] > 1)
    return fail(Code::kInvalid, "shape ({}): several labels an image; one class an image is read",
                fmt::join(shape, ", "));
  if (shape.empty() || shape.size() > 2 || (shape.size() == 2 && shape[1] != 1) ||
      shape[0] != images)
    return fail(Code::kCorrupt, "shape ({}) for {} images; ({}, 1) is wanted",
                fmt::join(shape, ", "), images, images);
  Bytes item(header.item_bytes);
  for (std::size_t i = 0; i < images; ++i) {
    if (auto read = array.read(item); !read) return read;
    const auto label = TRY(npy_integer(header, item));
    if (label < 0 || label >= kMaxClasses)
      return fail(Code::kCorrupt, "label {} at row {}; 0 to {} are read", label, i,
                  kMaxClasses - 1);
    labels.push_back(std::int32_t(label));
  }
  return array.finish();
}

Result<void> read_split(const NpzFile& file, const std::string& prefix, Split split,
                        const SourceOptions& options, Source& source) {
  const auto images_name = prefix + "_images.npy", labels_name = prefix + "_labels.npy";
  auto images = TRY(file.array(images_name));
  auto labels = TRY(file.array(labels_name));
  const auto count = read_images(images, options, source.images);
  if (!count) return in(images_name, count.error());
  if (auto read = read_labels(labels, *count, source.images.labels); !read)
    return in(labels_name, read.error());
  source.splits.insert(source.splits.end(), *count, split);
  source.sites.insert(source.sites.end(), *count, -1);
  return {};
}

Result<Source> read_archive(const SourceOptions& options) {
  const auto file = TRY(NpzFile::open(options.path));
  Source source;
  source.images.height = source.images.width = options.image_size;
  source.images.channels = options.channels;
  for (const auto& [prefix, split] :
       {std::pair{"train", Split::kTrain}, {"val", Split::kValidation}, {"test", Split::kTest}})
    if (auto read = read_split(file, prefix, split, options, source); !read)
      return std::unexpected(read.error());
  const auto& labels = source.images.labels;
  const auto top = labels.empty() ? 0 : *std::ranges::max_element(labels);
  source.images.classes =
      class_names(std::filesystem::path(options.path).stem().string(), std::size_t(top) + 1);
  return source;
}

Result<Source> read_medmnist(const SourceOptions& options, std::uint64_t) {
  if (options.path.empty())
    return fail(Code::kInvalid, "data.path: the .npz file that medmnist reads is missing");
  auto source = read_archive(options);
  if (source) return source;
  auto error = source.error();
  if (error.code == Code::kCorrupt) error.message += "; download it again";
  return in(options.path, error);
}

const RegisterReader kMedMnist{"medmnist", read_medmnist};

}  // namespace
}  // namespace preceptor::data
