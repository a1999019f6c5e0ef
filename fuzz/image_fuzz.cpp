// Bytes of a PNG, JPEG or BMP file. Decoded too when small, as image and as label map; libpng and
// libjpeg complain on standard error.
#include <opencv2/imgcodecs.hpp>

#include "data/image.h"
#include "fuzz/fuzz.h"

using namespace preceptor;
using namespace preceptor::data;

std::vector<std::vector<std::uint8_t>> seeds() {
  std::vector<std::vector<std::uint8_t>> all;
  for (const auto* extension : {".png", ".jpg", ".bmp"})
    for (const int type : {CV_8UC1, CV_8UC3, CV_16UC1})  // 16 bits: PNG; the others make it 8
      cv::imencode(extension, cv::Mat(12, 9, type, cv::Scalar::all(80)), all.emplace_back());
  return all;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto shape = peek_image(bytes);
  if (!shape) return 0;
  if (shape->height <= 0 || shape->width <= 0) __builtin_trap();
  if (std::int64_t{shape->height} * shape->width > 4096) return 0;
  std::vector<std::uint8_t> out;
  if (decode_image(bytes, 8, 3, out) && out.size() != 8 * 8 * 3) __builtin_trap();
  const auto map = decode_labels(bytes);
  if (map && map->labels.size() != std::size_t(map->height) * std::size_t(map->width)) __builtin_trap();
  return 0;
}
