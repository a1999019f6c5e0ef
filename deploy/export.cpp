#include "deploy/export.h"

#include <torch/torch.h>

#include "common/file.h"
#include "common/hash.h"
#include "deploy/onnx.h"
#include "deploy/torchscript.h"
#include "models/flat_model.h"
#include "models/structure.h"

namespace preceptor::deploy {
namespace {

using Texts = std::map<std::string, std::string>;

/// The model file's own metadata; its hash is of the parameters before they were folded.
Texts origin(Texts metadata) {
  if (auto hash = metadata.extract("model_hash")) {
    hash.key() = "source_model_hash";
    metadata.insert(std::move(hash));
  }
  metadata.erase("format");
  return metadata;
}

/// What a reader of the file has to know to feed it; the pixels are training::make_batch's.
Texts notes(models::ModelSpec spec, Texts notes) {
  const auto text = write_options(spec);
  notes["spec"] = text;
  notes["architecture"] = spec.model.name;
  notes["architecture_hash"] = hex(sha256(text));
  notes["classes"] = std::to_string(spec.task.classes);
  notes["preprocessing"] = fmt::format("float32 [batch, {}, {}, {}], {}; each pixel p of 0 … 255 as p / 127.5 - 1", spec.task.channels,
                                       spec.task.image_size, spec.task.image_size, spec.task.channels == 1 ? "grey" : "RGB");
  return notes;
}

/// A FlatModel over a network whose branches were folded: parameters have other names and sizes than before.
Result<models::FlatModel> flatten(models::Model& fused, const models::ModelSpec& spec) {
  auto flat = TRY(models::FlatModel::create(spec));
  torch::NoGradGuard no_grad;
  auto tensors = fused.named_parameters();
  for (const auto& buffer : fused.named_buffers()) tensors.insert(buffer.key(), buffer.value());
  const auto copy = [&](const auto& items) {
    for (const auto& item : items) item.value().copy_(tensors[item.key()]);
  };
  copy(flat.network().named_parameters());
  copy(flat.network().named_buffers());
  return flat;
}

}  // namespace

Result<Format> format_of(const std::string& name) {
  if (name == "onnx") return Format::kOnnx;
  if (name == "torchscript") return Format::kTorchScript;
  if (name == "safetensors") return Format::kSafetensors;
  return fail(Code::kInvalid, "unknown format '{}'; known: onnx, torchscript, safetensors", name);
}

Result<Exported> export_model(const std::filesystem::path& model, Format format, const std::filesystem::path& out) {
  auto loaded = TRY(models::load_model(model));
  auto& network = loaded.model.network();
  Exported done{loaded.model.spec(), 0, 0, loaded.model.spec().structure.int8.size()};
  const auto names = network.named_parameters().keys();
  network.fuse();
  const bool folded = network.named_parameters().keys() != names;
  if (folded) {
    done.spec.structure.fused = true;
    done.spec.structure = TRY(models::with_shapes_of(done.spec, network));
  }
  if (format == Format::kSafetensors) {
    const auto flat = TRY(folded ? flatten(network, done.spec) : Result<models::FlatModel>(std::move(loaded.model)));
    TRY(models::save_model(out, flat, folded ? origin(loaded.metadata) : loaded.metadata));
    done.bytes = std::filesystem::file_size(out);
    return done;
  }
  auto graph = TRY(models::trace(network, done.spec.task));
  models::freeze(graph);
  done.operators = graph.nodes.size();
  const auto texts = notes(done.spec, origin(loaded.metadata));
  const auto bytes = TRY(format == Format::kOnnx ? to_onnx(graph, done.spec.model.name, texts) : to_torchscript(graph, texts));
  TRY(write_file(out, std::string_view(bytes)));
  done.bytes = bytes.size();
  return done;
}

}  // namespace preceptor::deploy
