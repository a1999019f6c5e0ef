#pragma once
#ifdef CEREAL_TYPES_MEMORY_HPP_
#error \
    "transport/archive.h: pointer types never cross the wire; leave <cereal/types/memory.hpp> out"
#endif
#include <array>
#include <cereal/cereal.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "common/bytes.h"

/// cereal for bytes that nobody vouches for. cereal's own archives believe every size they read
/// (nine bytes cost 8 GiB) and recurse without end; these two check each size against the bytes
/// that are there and against the field's cap, and each nesting against kMaxDepth, before any
/// memory is taken. Layout: fixed width, little-endian, no padding; a text or list is a u64 count
/// and its items. Only numbers, bool, enums, std::array<std::byte, N>, Capped texts and lists, and
/// structs of these compile: an uncapped text or a pointer does not.
namespace preceptor::transport {

/// `value` may hold at most `max` items. Made by capped(); lives for one archive call.
template <class T>
struct Capped {
  T& value;
  std::size_t max;
};
template <class T>
Capped<T> capped(T& value, std::size_t max) {
  return {value, max};
}

/// Appends to `out`, which it borrows. Throws std::logic_error when a text or list is over its cap:
/// only a bug makes one that our own side would refuse to read.
class ArchiveWriter : public cereal::OutputArchive<ArchiveWriter, cereal::AllowEmptyClassElision> {
 public:
  explicit ArchiveWriter(Bytes& out) : OutputArchive(this), writer_(out) {}
  ByteWriter& bytes() { return writer_; }

 private:
  ByteWriter writer_;
};

/// Reads from `bytes`, which it borrows. Throws cereal::Exception, whose text is for the log, on
/// anything that breaks the layout; the caller turns that into an Error.
class ArchiveReader : public cereal::InputArchive<ArchiveReader, cereal::AllowEmptyClassElision> {
 public:
  static constexpr int kMaxDepth = 32;

  explicit ArchiveReader(std::span<const std::byte> bytes) : InputArchive(this), bytes_(bytes) {}
  std::size_t left() const { return bytes_.size(); }
  void read(void* to, std::size_t count) {
    if (count > left()) throw cereal::Exception(fmt::format("short by {} bytes", count - left()));
    if (count > 0) std::memcpy(to, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
  }
  /// A count of items of at least one byte each.
  std::size_t read_count(std::size_t max) {
    std::uint64_t count = 0;
    read(&count, sizeof count);
    if (count > max)
      throw cereal::Exception(fmt::format("a field of {} items; at most {}", count, max));
    if (count > left()) throw cereal::Exception(fmt::format("short by {} bytes", count - left()));
    return std::size_t(count);
  }
  void enter() {
    if (++depth_ > kMaxDepth)
      throw cereal::Exception(fmt::format("nested over {} deep", kMaxDepth));
  }
  void leave() { --depth_; }
  /// Call last: bytes left over are an error.
  void finish() const {
    if (left() > 0) throw cereal::Exception(fmt::format("{} bytes too many", left()));
  }

 private:
  std::span<const std::byte> bytes_;
  int depth_ = 0;
};

template <class T>
requires std::is_class_v<T>
void prologue(ArchiveReader& reader, const T&) { reader.enter(); }
template <class T>
requires std::is_class_v<T>
void epilogue(ArchiveReader& reader, const T&) { reader.leave(); }

template <class T>
void save(ArchiveWriter& writer, const Capped<T>& field) {
  if (field.value.size() > field.max)
    throw std::logic_error(
        fmt::format("a field of {} items; at most {}", field.value.size(), field.max));
  writer.bytes().put(std::uint64_t(field.value.size()));
  if constexpr (sizeof(typename T::value_type) == 1) {
    writer.bytes().put(std::as_bytes(std::span(field.value)));
  } else {
    for (const auto& item : field.value) writer(item);
  }
}
template <class T>
void load(ArchiveReader& reader, Capped<T>& field) {
  const auto count = reader.read_count(field.max);
  field.value.clear();
  if constexpr (sizeof(typename T::value_type) == 1) {
    field.value.resize(count);
    reader.read(field.value.data(), count);
  } else {
    for (std::size_t i = 0; i < count; ++i) reader(field.value.emplace_back());
  }
}

}  // namespace preceptor::transport

/// cereal looks for the functions of plain types in its own namespace.
namespace cereal {

template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(preceptor::transport::ArchiveWriter& writer, const T& value) {
  writer.bytes().put(value);
}
template <class T>
requires std::is_arithmetic_v<T>
void CEREAL_LOAD_FUNCTION_NAME(preceptor::transport::ArchiveReader& reader, T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    std::uint8_t byte = 0;
    reader.read(&byte, 1);
    if (byte > 1) throw Exception("a yes-or-no that is neither");
    value = byte == 1;
  } else {
    reader.read(&value, sizeof value);
    if constexpr (std::is_floating_point_v<T>)
      if (!std::isfinite(value)) throw Exception("a number that is not finite");
  }
}
template <std::size_t N>
void CEREAL_SAVE_FUNCTION_NAME(preceptor::transport::ArchiveWriter& writer,
                               const std::array<std::byte, N>& value) {
  writer.bytes().put(std::span<const std::byte>(value));
}
template <std::size_t N>
void CEREAL_LOAD_FUNCTION_NAME(preceptor::transport::ArchiveReader& reader,
                               std::array<std::byte, N>& value) {
  reader.read(value.data(), N);
}

}  // namespace cereal
