#include <iostream>
#include <nlohmann/json.hpp>

#include "app/command.h"
#include "deploy/export.h"
#include "deploy/onnx.h"

namespace preceptor::app {
namespace {

struct Arguments {
  std::string model, format = "onnx", out;
  bool json = false;
};

Result<void> export_to(const Arguments& a) {
  const auto format = TRY(deploy::format_of(a.format));
  const auto done = TRY(deploy::export_model(a.model, format, a.out));
  const auto& task = done.spec.task;
  if (a.json) {
    nlohmann::ordered_json json{{"out", a.out}, {"format", a.format}, {"model", done.spec.model.name}, {"bytes", done.bytes}};
    if (format == deploy::Format::kOnnx) json["opset"] = deploy::kOnnxOpset;
    if (done.operators > 0) json["operators"] = done.operators;
    json["int8_layers"] = done.int8_layers;
    json["fused"] = done.spec.structure.fused;
    json["input"] = {"batch", task.channels, task.image_size, task.image_size};
    std::cout << json.dump(2) << "\n";
    return {};
  }
  const auto rounded = done.int8_layers > 0 ? fmt::format(", {} layers in int8", done.int8_layers) : "";
  std::cout << fmt::format("{}: {} as {}, {:.2f} MB{}\n", a.out, done.spec.model.name, a.format, double(done.bytes) / 1e6, rounded);
  return {};
}

const RegisterCommand kDeployExport{
    "deploy export",
    {"Write a model for others to run: ONNX, TorchScript or safetensors",
     "preceptor deploy export runs/pneumonia/model.safetensors --format onnx --out pneumonia.onnx",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       app.add_option("--format", a->format)->check(CLI::IsMember({"onnx", "torchscript", "safetensors"}))->capture_default_str();
       app.add_option("--out", a->out, "file to write")->required();
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] { return finish(export_to(*a)); };
     }}};

}  // namespace
}  // namespace preceptor::app
