#pragma once
#include "data/image.h"
#include "data/source.h"

/// Reader "masks": images with a class of each pixel, as two folders,
///   <root>/images/<id>.png (.jpg, .jpeg, .bmp)   and   <root>/labels/<id>.png,
/// and, if there is one, <root>/images.csv: column id and, if wanted, site and split. With
/// `masks: instance` a label map numbers the objects: what is not 0 is class 1, "object". With
/// `masks: class` it holds the classes themselves, 0 … 255; how many, `classes` says (a larger
/// one is an error), or the largest that occurs.
namespace preceptor::data {

/// One pair of files, by name.
struct MaskedEntry {
  std::string id, image, label;  ///< paths below the root
  std::string site;
  Split split = Split::kUnassigned;
};

/// A pair at its own size; `mask` has a class a pixel.
struct MaskedImage {
  Image image;
  std::vector<std::uint8_t> mask;
};

/// What lies below options.path, in order of id. Errors name the file or the line.
Result<std::vector<MaskedEntry>> list_masked(const SourceOptions& options);
/// Errors: as decode_image; kCorrupt when image and label map differ in size.
Result<MaskedImage> read_masked(const SourceOptions& options, const MaskedEntry& entry);

}  // namespace preceptor::data
