#pragma once
#include <span>
#include <vector>

#include "common/bytes.h"
#include "data/source.h"

namespace preceptor::data {

/// Height, width and channels (1 or 3) of pixels that lie row by row, channels last.
struct ImageShape {
  int height = 0, width = 0, channels = 0;
};

/// Appends one image, brought to size × size × channels: area resampling where it shrinks, bilinear
/// where it grows; grey is repeated, RGB becomes luma (ITU-R BT.601). pixels: height·width·channels
/// bytes. Errors: kCorrupt when OpenCV cannot.
Result<void> append_image(std::span<const std::uint8_t> pixels, ImageShape shape, int size,
                          int channels, std::vector<std::uint8_t>& out);

/// The same for a class map, one class a pixel: nearest neighbour, so that no new class appears.
Result<void> append_mask(std::span<const std::uint8_t> mask, int height, int width, int size,
                         std::vector<std::uint8_t>& out);

/// Shape as a PNG, JPEG or BMP file's header states it, without decoding. Errors: kCorrupt when it
/// is none of these, is truncated, or (JPEG) lacks its end marker.
Result<ImageShape> peek_image(std::span<const std::byte> file);

/// Decodes a PNG, JPEG or BMP file (16-bit samples keep their high byte; alpha is dropped; the EXIF
/// orientation is applied) and appends it as append_image does. Errors: kCorrupt; kRefused over
/// kMaxImagePixels, before anything is decoded.
Result<void> decode_image(std::span<const std::byte> file, int size, int channels,
                          std::vector<std::uint8_t>& out);

/// The same at the file's own size. Errors: as decode_image.
struct Image {
  ImageShape shape;
  std::vector<std::uint8_t> pixels;
};
Result<Image> decode_whole(std::span<const std::byte> file, int channels);

/// A label map: a number a pixel, from an image file of one channel of 8 or 16 bits. Errors: as
/// decode_image, and kCorrupt for colours.
struct LabelMap {
  int height = 0, width = 0;
  std::vector<std::uint16_t> labels;
};
Result<LabelMap> decode_labels(std::span<const std::byte> file);

inline constexpr std::int64_t kMaxImagePixels = 64 << 20;

}  // namespace preceptor::data
