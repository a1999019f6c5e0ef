#include "data/image.h"

#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

namespace preceptor::data {
namespace {

// A mutable view, as OpenCV wants it; only read from.
cv::Mat view(std::span<const std::uint8_t> pixels, ImageShape shape) {
  auto* data = const_cast<std::uint8_t*>(pixels.data());
  return cv::Mat(shape.height, shape.width, CV_8UC(shape.channels), data);
}

void one_thread() {  // images are small; callers have threads
  static const bool done = (cv::setNumThreads(1), true);
  (void)done;
}

void append(const cv::Mat& image, std::vector<std::uint8_t>& out) {
  const auto whole = image.isContinuous() ? image : image.clone();
  out.insert(out.end(), whole.data, whole.data + whole.total() * whole.elemSize());
}

// bgr: the order of a 3-channel image, which imdecode turns round. size 0: its own.
void append_mat(cv::Mat image, bool bgr, int size, int channels, std::vector<std::uint8_t>& out) {
  one_thread();
  if (image.channels() == 3 && channels == 1)
    cv::cvtColor(image, image, bgr ? cv::COLOR_BGR2GRAY : cv::COLOR_RGB2GRAY);
  else if (image.channels() == 3 && bgr)
    cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
  if (size > 0 && (image.rows != size || image.cols != size)) {
    const bool shrinks = image.rows >= size && image.cols >= size;
    cv::Mat resized;
    cv::resize(image, resized, {size, size}, 0, 0,
               shrinks ? cv::INTER_AREA : cv::INTER_LINEAR_EXACT);
    image = resized;
  }
  if (image.channels() == 1 && channels == 3) cv::cvtColor(image, image, cv::COLOR_GRAY2RGB);
  append(image, out);
}

std::uint32_t big_endian(std::span<const std::byte> bytes) {
  std::uint32_t value = 0;
  for (const auto b : bytes) value = value << 8 | std::to_integer<std::uint32_t>(b);
  return value;
}

Result<ImageShape> checked(std::int64_t height, std::int64_t width, int channels) {
  if (height <= 0 || width <= 0 || height > INT32_MAX || width > INT32_MAX)
    return fail(Code::kCorrupt, "header states {} × {} pixels", width, height);
  return ImageShape{int(height), int(width), channels};
}

// Walks the chunks to the end chunk: libpng would find a truncation only after decoding, and print
// it.
Result<ImageShape> peek_png(ByteReader reader) {
  TRY(reader.take(8));
  ImageShape shape;
  for (;;) {
    const auto length = big_endian(TRY(reader.take(4)));
    const auto type = big_endian(TRY(reader.take(4)));
    const auto chunk = TRY(reader.take(length));
    TRY(reader.take(4));                              // CRC-32, which libpng checks
    if (type == 0x49484452 && shape.channels == 0) {  // IHDR
      if (length != 13) return fail(Code::kCorrupt, "PNG: header of {} bytes", length);
      const auto colour = std::to_integer<int>(chunk[9]);
      shape = TRY(
          checked(big_endian(chunk.subspan(4, 4)), big_endian(chunk.first(4)), colour & 2 ? 3 : 1));
    }
    if (shape.channels == 0) return fail(Code::kCorrupt, "PNG: does not begin with its header");
    if (type == 0x49454e44) return shape;  // IEND
  }
}

Result<ImageShape> peek_bmp(ByteReader reader) {
  TRY(reader.take(14));
  if (TRY(reader.get<std::uint32_t>()) < 40) return fail(Code::kCorrupt, "BMP: header of OS/2 1.x");
  const auto width = TRY(reader.get<std::int32_t>());
  const auto height = TRY(reader.get<std::int32_t>());  // negative: top row first
  return checked(std::abs(std::int64_t{height}), width, 3);
}

// Walks the markers to the frame header, then to the scan, and wants an end marker after it:
// libjpeg would fill a truncated file up with grey and call it an image.
Result<ImageShape> peek_jpeg(ByteReader reader) {
  TRY(reader.take(2));
  ImageShape shape;
  for (;;) {
    const auto prefix = TRY(reader.get<std::uint8_t>());
    auto marker = TRY(reader.get<std::uint8_t>());
    while (marker == 0xff) marker = TRY(reader.get<std::uint8_t>());  // padding
    if (prefix != 0xff) return fail(Code::kCorrupt, "JPEG: no marker where one is due");
    if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd8))
      return fail(Code::kCorrupt, "JPEG: marker {:02x} where a segment is due", marker);
    const auto length = big_endian(TRY(reader.take(2)));
    if (length < 2) return fail(Code::kCorrupt, "JPEG: a segment of {} bytes", length);
    const auto segment = TRY(reader.take(length - 2));
    const bool frame =
        marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
    if (frame) {
      if (segment.size() < 6) return fail(Code::kCorrupt, "JPEG: short frame header");
      shape = TRY(checked(big_endian(segment.subspan(1, 2)), big_endian(segment.subspan(3, 2)),
                          segment[5] == std::byte{1} ? 1 : 3));
    }
    if (marker == 0xda) break;
  }
  if (shape.channels == 0) return fail(Code::kCorrupt, "JPEG: no frame header");
  const auto rest = TRY(reader.take(reader.left()));
  for (std::size_t i = 0; i + 1 < rest.size(); ++i)
    if (rest[i] == std::byte{0xff} && rest[i + 1] == std::byte{0xd9}) return shape;
  return fail(Code::kCorrupt, "JPEG: truncated");
}

}  // namespace

Result<void> append_image(std::span<const std::uint8_t> pixels, ImageShape shape, int size,
                          int channels, std::vector<std::uint8_t>& out) {
  try {
    append_mat(view(pixels, shape), false, size, channels, out);
    return {};
  } catch (const cv::Exception& error) {
    return fail(Code::kCorrupt, "cannot resize {} × {}: {}", shape.width, shape.height, error.err);
  }
}

Result<ImageShape> peek_image(std::span<const std::byte> file) {
  const auto starts = [&](std::string_view magic) {
    return file.size() >= magic.size() && std::memcmp(file.data(), magic.data(), magic.size()) == 0;
  };
  if (starts("\x89PNG\r\n\x1a\n")) return peek_png(ByteReader(file));
  if (starts("\xff\xd8\xff")) return peek_jpeg(ByteReader(file));
  if (starts("BM")) return peek_bmp(ByteReader(file));
  return fail(Code::kCorrupt, "neither PNG nor JPEG nor BMP");
}

Result<void> append_mask(std::span<const std::uint8_t> mask, int height, int width, int size,
                         std::vector<std::uint8_t>& out) {
  one_thread();
  try {
    cv::Mat resized;
    cv::resize(view(mask, {height, width, 1}), resized, {size, size}, 0, 0,
               cv::INTER_NEAREST_EXACT);
    append(resized, out);
    return {};
  } catch (const cv::Exception& error) {
    return fail(Code::kCorrupt, "cannot resize a mask of {} × {}: {}", width, height, error.err);
  }
}

namespace {

// What imdecode makes of a file whose header passed.
Result<cv::Mat> decode(std::span<const std::byte> file, int flags) {
  const auto shape = TRY(peek_image(file));
  if (std::int64_t{shape.height} * shape.width > kMaxImagePixels)
    return fail(Code::kRefused, "{} × {} pixels; at most {} are decoded", shape.width, shape.height,
                kMaxImagePixels);
  auto* data = const_cast<std::byte*>(file.data());
  const cv::Mat bytes(1, int(file.size()), CV_8U, data);
  auto image = cv::imdecode(bytes, flags);
  if (image.empty()) return fail(Code::kCorrupt, "cannot be decoded");
  return image;
}

// OpenCV's exceptions as our errors.
template <class Work>
auto guarded(Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const cv::Exception& error) {
    return fail(Code::kCorrupt, "cannot be decoded: {}", error.err);
  }
}

}  // namespace

Result<void> decode_image(std::span<const std::byte> file, int size, int channels,
                          std::vector<std::uint8_t>& out) {
  return guarded([&]() -> Result<void> {
    append_mat(TRY(decode(file, cv::IMREAD_ANYCOLOR)), true, size, channels, out);
    return {};
  });
}

Result<Image> decode_whole(std::span<const std::byte> file, int channels) {
  return guarded([&]() -> Result<Image> {
    auto decoded = TRY(decode(file, cv::IMREAD_ANYCOLOR));
    Image image{{decoded.rows, decoded.cols, channels}, {}};
    append_mat(std::move(decoded), true, 0, channels, image.pixels);
    return image;
  });
}

Result<LabelMap> decode_labels(std::span<const std::byte> file) {
  return guarded([&]() -> Result<LabelMap> {
    const auto decoded = TRY(decode(file, cv::IMREAD_UNCHANGED));
    if (decoded.channels() != 1 || (decoded.depth() != CV_8U && decoded.depth() != CV_16U))
      return fail(Code::kCorrupt, "a label map has one channel of 8 or 16 bits, this has {} channels",
                  decoded.channels());
    LabelMap map{decoded.rows, decoded.cols, {}};
    map.labels.resize(std::size_t(map.height) * map.width);
    cv::Mat target(map.height, map.width, CV_16U, map.labels.data());
    decoded.convertTo(target, CV_16U);
    return map;
  });
}

}  // namespace preceptor::data
