#include "common/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/file.h"

namespace preceptor {
namespace {

constexpr std::uint64_t kMaxHeader = 16 << 20;
constexpr std::size_t kMaxRank = 8;
constexpr int kMaxDepth = 3;  ///< header, tensor, shape

using Json = nlohmann::json;

std::size_t dtype_bytes(const std::string& dtype) {
  static const std::map<std::string, std::size_t> kSizes{
      {"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"I16", 2},
      {"I8", 1},  {"U8", 1},  {"BOOL", 1}, {"U16", 2},  {"U32", 4}, {"U64", 8}};
  const auto found = kSizes.find(dtype);
  return found == kSizes.end() ? 0 : found->second;
}

Result<StoredTensor> read_entry(const std::string& name, const Json& entry,
                                std::span<const std::byte> data) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() ||
      !entry.contains("shape") || !entry["shape"].is_array() || !entry.contains("data_offsets") ||
      !entry["data_offsets"].is_array() || entry["data_offsets"].size() != 2)
    return fail(Code::kCorrupt, "tensor '{}': wants dtype, shape and two data_offsets", name);
  StoredTensor tensor{name, entry["dtype"], {}, {}};
  std::uint64_t bytes = dtype_bytes(tensor.dtype);
  if (bytes == 0)
    return fail(Code::kCorrupt, "tensor '{}': unknown dtype '{}'", name, tensor.dtype);
  if (entry["shape"].size() > kMaxRank)
    return fail(Code::kCorrupt, "tensor '{}': more than {} dimensions", name, kMaxRank);
  for (const auto& extent : entry["shape"]) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > data.size())
      return fail(Code::kCorrupt, "tensor '{}': a shape that the file cannot hold", name);
    if (__builtin_mul_overflow(bytes, extent.get<std::uint64_t>(), &bytes))
      return fail(Code::kCorrupt, "tensor '{}': its size overflows", name);
    tensor.shape.push_back(extent.get<std::int64_t>());
  }
  for (const auto& offset : entry["data_offsets"])
    if (!offset.is_number_unsigned())
      return fail(Code::kCorrupt, "tensor '{}': an offset is not a whole number", name);
  const auto begin = entry["data_offsets"][0].get<std::uint64_t>(),
             end = entry["data_offsets"][1].get<std::uint64_t>();
  if (begin > end || end > data.size() || end - begin != bytes)
    return fail(Code::kCorrupt,
                "tensor '{}': offsets {}..{} do not fit its {} bytes in a file with {}", name,
                begin, end, bytes, data.size());
  tensor.data = data.subspan(begin, bytes);
  return tensor;
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::load(const std::filesystem::path& path,
                                              std::uint64_t max_bytes) {
  auto bytes = TRY(read_file(path, max_bytes));
  auto file = parse(std::move(bytes));
  if (!file) return in(path.string(), file.error());
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(Bytes bytes) {
  SafetensorsFile file;
  file.bytes_ = std::move(bytes);
  ByteReader reader(file.bytes_);
  const auto length = TRY(reader.get<std::uint64_t>());
  if (length > kMaxHeader || length > reader.left())
    return fail(Code::kCorrupt,
                "not a safetensors file: its header claims {} bytes and the file has {}", length,
                reader.left());
  const auto text = TRY(reader.take(length));
  const auto data = TRY(reader.take(reader.left()));
  const auto* begin = reinterpret_cast<const char*>(text.data());
  // What lies too deep is not stored: nesting costs memory a hundred times its text.
  bool deep = false;
  const auto shallow = [&deep](int depth, Json::parse_event_t event, Json&) {
    const auto starts =
        event == Json::parse_event_t::array_start || event == Json::parse_event_t::object_start;
    deep |= starts && depth >= kMaxDepth;
    return !deep;
  };
  const auto header = Json::parse(begin, begin + text.size(), shallow, /*allow_exceptions=*/false);
  if (deep) return fail(Code::kCorrupt, "not a safetensors file: its header nests too deep");
  if (!header.is_object())
    return fail(Code::kCorrupt, "not a safetensors file: its header is not a JSON object");
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      file.tensors_.push_back(TRY(read_entry(name, entry, data)));
      continue;
    }
    if (!entry.is_object()) return fail(Code::kCorrupt, "__metadata__ is not an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string()) return fail(Code::kCorrupt, "__metadata__ '{}' is not a text", key);
      file.metadata_[key] = value;
    }
  }
  std::ranges::sort(file.tensors_, {},
                    [](const StoredTensor& t) { return std::pair(t.data.data(), t.data.size()); });
  const auto* expected = data.data();
  for (const auto& tensor : file.tensors_) {
    if (tensor.data.data() != expected)
      return fail(Code::kCorrupt, "tensor '{}': overlaps another or leaves a gap", tensor.name);
    expected += tensor.data.size();
  }
  if (expected != data.data() + data.size())
    return fail(Code::kCorrupt, "bytes after the last tensor");
  return file;
}

const StoredTensor* SafetensorsFile::find(const std::string& name) const {
  const auto found = std::ranges::find(tensors_, name, &StoredTensor::name);
  return found == tensors_.end() ? nullptr : &*found;
}

Bytes encode_safetensors(const std::vector<StoredTensor>& tensors,
                         const std::map<std::string, std::string>& metadata) {
  auto header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    header[tensor.name] = {{"dtype", tensor.dtype},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + tensor.data.size()}}};
    offset += tensor.data.size();
  }
  auto text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start at a multiple of 8
  Bytes bytes;
  bytes.reserve(8 + text.size() + offset);
  ByteWriter writer(bytes);
  writer.put(std::uint64_t(text.size()));
  writer.put(bytes_of(text));
  for (const auto& tensor : tensors) writer.put(tensor.data);
  return bytes;
}

}  // namespace preceptor
