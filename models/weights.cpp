#include "models/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <optional>
#include <set>

#include "common/half.h"

namespace preceptor::models {
namespace {

using Shape = std::vector<std::int64_t>;
using Shapes = std::map<std::string, Shape>;

constexpr std::size_t kNamed = 3;  ///< tensors that an error names

std::string text(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

/// The pieces of a network that differs in one option; none where there is no such network. What depends on the
/// classes, channels, image size or stem is found by comparison, not by its name.
template <class Change>
Shapes shapes_with(ModelSpec spec, Change change) {
  change(spec);
  Shapes shapes;
  if (const auto model = FlatModel::create(spec))
    for (const auto& piece : model->space().pieces()) shapes[piece.name] = piece.shape;
  return shapes;
}

bool changes(const Piece& piece, const Shapes& other) {
  const auto found = other.find(piece.name);
  return found != other.end() && found->second != piece.shape;
}

/// The only dimension in which two shapes differ; none where they differ in more, in rank, or not at all.
std::optional<std::size_t> difference(const Shape& a, const Shape& b) {
  if (a.size() != b.size()) return {};
  std::optional<std::size_t> at;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    if (at) return {};
    at = i;
  }
  return at;
}

Result<std::vector<float>> values_of(const StoredTensor& tensor) {
  std::vector<float> values;
  if (tensor.dtype == "F32") {
    values.resize(tensor.data.size() / sizeof(float));
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  } else if (tensor.dtype == "F16" || tensor.dtype == "BF16") {
    std::vector<std::uint16_t> bits(tensor.data.size() / sizeof(std::uint16_t));
    std::memcpy(bits.data(), tensor.data.data(), tensor.data.size());
    values.resize(bits.size());
    std::ranges::transform(bits, values.begin(), tensor.dtype == "F16" ? from_fp16 : from_bf16);
  } else {
    return fail(Code::kInvalid, "tensor '{}' is {}; F32, F16 and BF16 can be read", tensor.name, tensor.dtype);
  }
  if (!std::ranges::all_of(values, [](float v) { return std::isfinite(v); }))
    return fail(Code::kCorrupt, "tensor '{}' holds a value that is not finite", tensor.name);
  return values;
}

/// [outer, from, inner] → [outer, to, inner]: the sum over `from` in `to` equal parts.
std::vector<float> share_out(const std::vector<float>& values, const Shape& shape, std::size_t dimension, std::int64_t to) {
  const auto product = [](auto begin, auto end) { return std::accumulate(begin, end, std::int64_t{1}, std::multiplies<>()); };
  const auto at = shape.begin() + std::ptrdiff_t(dimension);
  const auto outer = std::size_t(product(shape.begin(), at)), inner = std::size_t(product(at + 1, shape.end()));
  const auto from = std::size_t(*at), parts = std::size_t(to);
  std::vector<float> shared(outer * parts * inner);
  for (std::size_t o = 0; o < outer; ++o)
    for (std::size_t i = 0; i < inner; ++i) {
      double sum = 0;
      for (std::size_t k = 0; k < from; ++k) sum += double(values[(o * from + k) * inner + i]);
      for (std::size_t k = 0; k < parts; ++k) shared[(o * parts + k) * inner + i] = float(sum / double(parts));
    }
  return shared;
}

/// The file read under one source's names.
struct Reading {
  struct Match {
    const Piece* piece;
    const StoredTensor* tensor;
    std::optional<std::size_t> channels = {};  ///< the dimension to be shared out
  };
  struct Missing {
    const Piece* piece;
    std::string name;
    const StoredTensor* tensor;  ///< of another shape; null: not there
  };
  std::string source;
  std::vector<Match> found;
  std::vector<LoadedWeights::LeftOut> left_out;
  std::vector<Missing> missing;
  std::set<std::string> known;  ///< names that were asked for
};

/// Why a piece that depends on the number of classes stays as it is.
std::string head_reason(const Piece& piece, const StoredTensor* tensor) {
  if (!tensor) return "not in the file, and depends on the number of classes";
  return fmt::format("{} in the file, {} here: another number of classes", text(tensor->shape), text(piece.shape));
}

Reading read_as(const std::string& source, const ParameterNames& names, const FlatModel& model, const SafetensorsFile& file,
                const Shapes& other_classes, const Shapes& other_channels) {
  Reading reading{source, {}, {}, {}, {}};
  for (const auto& piece : model.space().pieces()) {
    const auto name = names(piece.name);
    if (name.empty()) {
      reading.left_out.push_back({piece.name, source + " has no such tensor"});
      continue;
    }
    reading.known.insert(name);
    const auto* tensor = file.find(name);
    const auto dimension = tensor ? difference(piece.shape, tensor->shape) : std::nullopt;
    if (tensor && tensor->shape == piece.shape)
      reading.found.push_back({&piece, tensor});
    else if (dimension && changes(piece, other_channels) && difference(piece.shape, other_channels.at(piece.name)) == dimension)
      reading.found.push_back({&piece, tensor, dimension});
    else if (changes(piece, other_classes))
      reading.left_out.push_back({piece.name, head_reason(piece, tensor)});
    else
      reading.missing.push_back({&piece, name, tensor});
  }
  return reading;
}

std::vector<std::string> unused_names(const SafetensorsFile& file, const Reading& reading) {
  std::vector<std::string> names;
  for (const auto& tensor : file.tensors())
    if (tensor.dtype.find('F') != std::string::npos && !reading.known.contains(tensor.name)) names.push_back(tensor.name);
  return names;
}

/// Which option would make the piece fit, as far as that can be told.
std::string way_out(const Reading::Missing& missing, const ModelSpec& spec) {
  for (const auto* stem : {"standard", "half", "small"}) {
    const auto shapes = shapes_with(spec, [&](ModelSpec& other) { other.model.stem = stem; });
    const auto found = shapes.find(missing.piece->name);
    if (found == shapes.end() || found->second == missing.piece->shape) continue;
    if (found->second == missing.tensor->shape || difference(found->second, missing.tensor->shape))  // but for the channels
      return fmt::format("; with stem: {} it is {}", stem, text(found->second));
  }
  if (changes(*missing.piece, shapes_with(spec, [](ModelSpec& other) { other.task.image_size *= 2; })))
    return "; it belongs to another image size, and position embeddings are not resized";
  return "";
}

std::unexpected<Error> say_missing(const Reading& reading, const FlatModel& model, const SafetensorsFile& file) {
  std::vector<std::string> wanted;
  for (const auto& missing : std::span(reading.missing).first(std::min(kNamed, reading.missing.size()))) {
    const auto& [piece, name, tensor] = missing;
    wanted.push_back(fmt::format("'{}' {} ({})", name, text(piece->shape),
                                 tensor ? "is " + text(tensor->shape) + way_out(missing, model.spec()) : "not there"));
  }
  if (reading.missing.size() > kNamed) wanted.push_back("…");
  auto others = unused_names(file, reading);
  const auto count = others.size();
  if (count > kNamed) others.resize(kNamed), others.push_back("…");
  return fail(Code::kInvalid, "not the weights of this {}: {} of its {} tensors do not fit under {}'s names: {}; {}",
              model.spec().model.name, reading.missing.size(), model.space().pieces().size(), reading.source,
              fmt::join(wanted, ", "),
              count == 0 ? "the file has no other" : fmt::format("it has {} others: {}", count, fmt::join(others, ", ")));
}

Result<LoadedWeights> load_from(FlatModel& model, const SafetensorsFile& file) {
  const auto* architecture = TRY(zoo().find(model.spec().model.name));
  if (architecture->names.empty())
    return fail(Code::kInvalid, "no names of others' weights are known for {}", model.spec().model.name);
  const auto other_classes = shapes_with(model.spec(), [](ModelSpec& other) { ++other.task.classes; });
  const auto other_channels =
      shapes_with(model.spec(), [](ModelSpec& other) { other.task.channels = other.task.channels == 1 ? 3 : 1; });
  std::optional<Reading> best;
  for (const auto& [source, names] : architecture->names) {
    auto reading = read_as(source, names, model, file, other_classes, other_channels);
    if (!best || reading.found.size() > best->found.size()) best = std::move(reading);
  }
  if (!best->missing.empty()) return say_missing(*best, model, file);
  auto values = model.store();
  for (const auto& [piece, tensor, channels] : best->found) {
    auto theirs = TRY(values_of(*tensor));
    if (channels) theirs = share_out(theirs, tensor->shape, *channels, piece->shape[*channels]);
    std::ranges::copy(theirs, values.begin() + std::ptrdiff_t(piece->offset));
  }
  model.load(values);
  return LoadedWeights{best->source, best->found.size(), std::move(best->left_out), unused_names(file, *best)};
}

}  // namespace

Result<LoadedWeights> load_weights(FlatModel& model, const std::filesystem::path& path) {
  const auto file = TRY(SafetensorsFile::load(path));
  auto loaded = load_from(model, file);
  if (!loaded) return in(path.string(), loaded.error());
  return loaded;
}

Result<bool> is_model_file(const std::filesystem::path& path) {
  const auto file = TRY(SafetensorsFile::load(path));
  const auto format = file.metadata().find("format");  // PyTorch writes one too: "pt"
  return format != file.metadata().end() && format->second.starts_with("preceptor-model");
}

}  // namespace preceptor::models
