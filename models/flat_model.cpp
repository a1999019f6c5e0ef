#include "models/flat_model.h"

#include <torch/torch.h>

#include <cmath>

#include "common/file.h"
#include "models/layers.h"

namespace preceptor::models {
namespace {

struct Slot {
  at::Tensor tensor;
  bool trained;
};

Role role_of(const torch::nn::Module& module, const std::string& name, const at::Tensor& tensor, bool buffer) {
  const bool norm = module.as<torch::nn::BatchNorm1d>() || module.as<torch::nn::BatchNorm2d>() ||
                    module.as<torch::nn::LayerNorm>() || module.as<torch::nn::GroupNorm>() ||
                    module.as<torch::nn::InstanceNorm2d>();
  if (buffer) return name == "running_var" ? Role::kNormVariance : Role::kNormMean;
  if (!tensor.requires_grad()) return Role::kFrozen;
  if (name == "bias") return norm ? Role::kNormBias : Role::kBias;
  if (norm) return Role::kNormScale;
  // Matrices and kernels decay; a state space's rates, mixes, tokens, positions and layer scales do not.
  return name == "weight" || name.ends_with("_weight") ? Role::kWeight : Role::kBias;
}

}  // namespace

Result<FlatModel> FlatModel::create(const ModelSpec& spec, const std::string& device) {
  if (device == "cuda" && !torch::cuda::is_available())
    return fail(Code::kUnavailable, "device cuda: this LibTorch or machine has none; set device: cpu");
  FlatModel model;
  model.spec_ = spec;
  model.network_ = TRY(build(spec));
  std::vector<Slot> slots;
  for (const auto& item : model.network_->named_modules("", /*include_self=*/true)) {
    const auto add = [&](const auto& entry, bool buffer) {
      if (!entry.value().defined() || !entry.value().is_floating_point()) return;  // counters are not parameters
      const auto name = item.key().empty() ? entry.key() : item.key() + "." + entry.key();
      model.space_.add(name, entry.value().sizes().vec(), role_of(*item.value(), entry.key(), entry.value(), buffer));
      slots.push_back({entry.value(), !buffer && entry.value().requires_grad()});
    };
    for (const auto& entry : item.value()->named_parameters(/*recurse=*/false)) add(entry, false);
    for (const auto& entry : item.value()->named_buffers(/*recurse=*/false)) add(entry, true);
  }
  const auto options = torch::TensorOptions(torch::kFloat32).device(device == "cuda" ? torch::kCUDA : torch::kCPU);
  model.network_->to(options.device());
  model.values_ = torch::zeros({std::int64_t(model.space_.size())}, options);
  model.gradients_ = torch::zeros_like(model.values_);
  torch::NoGradGuard no_grad;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const auto& piece = model.space_.pieces()[i];
    const auto view = [&](const at::Tensor& flat) {
      return flat.narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size)).view(piece.shape);
    };
    view(model.values_).copy_(slots[i].tensor);
    slots[i].tensor.set_data(view(model.values_));
    if (slots[i].trained) slots[i].tensor.mutable_grad() = view(model.gradients_);
  }
  return model;
}

void FlatModel::initialise(RandomStream random) {
  TORCH_CHECK(spec_.structure.empty(), "a compressed network has values already");
  std::vector<float> values(space_.size());
  for (const auto& piece : space_.pieces()) {
    const std::span<float> target(values.data() + piece.offset, piece.size);
    double deviation = 0;
    if (piece.role == Role::kWeight && piece.shape.size() == 4)
      deviation = std::sqrt(2.0 / double(piece.shape[0] * piece.shape[2] * piece.shape[3]));
    else if (piece.role == Role::kWeight)
      deviation = 0.01;
    const bool one = piece.role == Role::kNormScale || piece.role == Role::kNormVariance;
    for (auto& value : target) value = deviation > 0 ? float(deviation * random.normal()) : one ? 1.0f : 0.0f;
  }
  load(values);
  torch::NoGradGuard no_grad;
  network_->initialise(random);
}

at::Tensor FlatModel::forward(const at::Tensor& images) {
  return network_->forward(channels_last(images.to(device(), torch::kFloat32)));
}

void FlatModel::load(std::span<const float> parameters) {
  TORCH_CHECK(parameters.size() == space_.size(), "FlatModel::load: ", parameters.size(), " floats for ", space_.size());
  torch::NoGradGuard no_grad;
  values_.copy_(torch::from_blob(const_cast<float*>(parameters.data()), {std::int64_t(parameters.size())}));
}

std::vector<float> FlatModel::store() const {
  std::vector<float> parameters(space_.size());
  torch::from_blob(parameters.data(), {std::int64_t(parameters.size())}).copy_(values_);
  return parameters;
}

namespace {

/// Whether a file holds the piece as integers: the weight of a layer that rounds.
bool is_integers(const ModelSpec& spec, const Piece& piece) {
  const std::string suffix = ".weight";
  return piece.name.ends_with(suffix) && spec.structure.int8.contains(piece.name.substr(0, piece.name.size() - suffix.size()));
}

std::string scale_name(const Piece& piece) { return piece.name + ".scale"; }

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

/// Codes of an int8 layer's weight times their steps. Error: kCorrupt.
Result<void> read_integers(const SafetensorsFile& file, const Piece& piece, std::span<float> values) {
  const auto *codes = file.find(piece.name), *scale = file.find(scale_name(piece));
  if (!codes || codes->dtype != "I8" || codes->shape != piece.shape)
    return fail(Code::kCorrupt, "tensor '{}' is missing or is not int8 [{}]", piece.name, fmt::join(piece.shape, ", "));
  const auto channels = std::size_t(piece.shape[0]);
  if (!scale || scale->dtype != "F32" || scale->shape != std::vector{piece.shape[0]})
    return fail(Code::kCorrupt, "tensor '{}' is missing or is not float32 [{}]", scale_name(piece), channels);
  std::vector<float> steps(channels);
  std::memcpy(steps.data(), scale->data.data(), scale->data.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto code = std::to_integer<std::int8_t>(codes->data[i]);
    const float step = steps[i / (values.size() / channels)];
    if (code == -128 || !(step > 0))  // the grid is symmetric
      return fail(Code::kCorrupt, "tensor '{}' or its scale holds what no rounding gives", piece.name);
    values[i] = float(code) * step;
  }
  return {};
}

Result<void> read_floats(const SafetensorsFile& file, const Piece& piece, std::span<float> values) {
  const auto* tensor = file.find(piece.name);
  if (!tensor || tensor->dtype != "F32" || tensor->shape != piece.shape)
    return fail(Code::kCorrupt, "tensor '{}' is missing or is not float32 [{}]", piece.name, fmt::join(piece.shape, ", "));
  std::memcpy(values.data(), tensor->data.data(), tensor->data.size());
  return {};
}

}  // namespace

Result<void> save_model(const std::filesystem::path& path, const FlatModel& model, const std::map<std::string, std::string>& extra) {
  auto values = model.store();
  std::vector<StoredTensor> tensors;
  std::vector<at::Tensor> integers;  // what `tensors` borrows from
  for (const auto& piece : model.space().pieces()) {
    const auto floats = std::span(values).subspan(piece.offset, piece.size);
    if (!is_integers(model.spec(), piece)) {
      tensors.push_back({piece.name, "F32", piece.shape, std::as_bytes(floats)});
      continue;
    }
    const auto weight = torch::from_blob(floats.data(), piece.shape);
    const auto step = rounding_step(weight);
    integers.push_back((weight / step).round().to(torch::kInt8));
    tensors.push_back({piece.name, "I8", piece.shape, bytes_of(integers.back())});
    integers.push_back(step.flatten());
    tensors.push_back({scale_name(piece), "F32", {piece.shape[0]}, bytes_of(integers.back())});
  }
  auto metadata = extra;
  auto spec = model.spec();
  metadata["format"] = "preceptor-model-1";
  metadata["spec"] = write_options(spec);
  return write_file(path, encode_safetensors(tensors, metadata));
}

Result<LoadedModel> load_model(const std::filesystem::path& path, const std::string& device) {
  const auto file = TRY(SafetensorsFile::load(path));
  const auto spec_text = file.metadata().find("spec");
  if (spec_text == file.metadata().end())
    return fail(Code::kCorrupt, "{}: no 'spec' in its metadata; it was not written by preceptor", path.string());
  const auto node = TRY(parse_yaml(spec_text->second, path.string() + " (spec)"));
  const auto spec = TRY(read_options<ModelSpec>(node, path.string() + " (spec)"));
  auto model = TRY(FlatModel::create(spec, device));
  const auto& pieces = model.space().pieces();
  const auto scales = std::ranges::count_if(pieces, [&](const Piece& piece) { return is_integers(spec, piece); });
  if (file.tensors().size() != pieces.size() + std::size_t(scales))
    return fail(Code::kCorrupt, "{}: {} tensors, but a {} has {}", path.string(), file.tensors().size(), spec.model.name,
                pieces.size() + std::size_t(scales));
  std::vector<float> values(model.space().size());
  for (const auto& piece : pieces) {
    const auto target = std::span(values).subspan(piece.offset, piece.size);
    const auto read = is_integers(spec, piece) ? read_integers(file, piece, target) : read_floats(file, piece, target);
    if (!read) return in(path.string(), read.error());
  }
  for (const auto value : values)
    if (!std::isfinite(value)) return fail(Code::kCorrupt, "{}: holds a value that is not finite", path.string());
  model.load(values);
  return LoadedModel{std::move(model), file.metadata()};
}

}  // namespace preceptor::models
