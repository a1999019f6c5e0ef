#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <opencv2/imgcodecs.hpp>

#include "app/command.h"
#include "app/report_format.h"
#include "common/file.h"
#include "data/files.h"
#include "deploy/predictor.h"

namespace preceptor::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, images, masks;
  bool json = false;
};

/// The image itself, or every image below the folder, by name.
Result<std::vector<fs::path>> list(const fs::path& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return std::vector{path};
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator walk(path, error), end; !error && walk != end; walk.increment(error))
    if (data::is_image(walk->path()) && walk->is_regular_file()) files.push_back(walk->path());
  if (error) return fail(Code::kIo, "{}: cannot be listed: {}", path.string(), error.message());
  if (files.empty()) return fail(Code::kNotFound, "{}: holds no .png, .jpg, .jpeg or .bmp", path.string());
  std::ranges::sort(files);
  return files;
}

/// Class c as grey value c, so that the file is what `data.masks: class` reads.
Result<void> write_mask(const fs::path& file, const std::vector<std::uint8_t>& mask, int side) {
  std::vector<std::uint8_t> png;
  if (!cv::imencode(".png", cv::Mat(side, side, CV_8UC1, const_cast<std::uint8_t*>(mask.data())), png))
    return fail(Code::kIo, "{}: the mask could not be encoded", file.string());
  return write_file(file, std::as_bytes(std::span(png)));
}

Json to_json(const deploy::Prediction& prediction, const deploy::Predictor& predictor) {
  Json json{{"class", predictor.contract().classes[prediction.chosen]}};
  auto& shares = json[predictor.segmentation() ? "area" : "probabilities"];
  for (std::size_t c = 0; c < prediction.probabilities.size(); ++c) shares[predictor.contract().classes[c]] = prediction.probabilities[c];
  return json;
}

std::string line(const std::string& file, const deploy::Prediction& prediction, const deploy::Predictor& predictor) {
  std::string shares;
  for (std::size_t c = 0; c < prediction.probabilities.size(); ++c)
    shares += fmt::format("{}{} {:.3f}", c == 0 ? "" : ", ", terminal(predictor.contract().classes[c], 30), prediction.probabilities[c]);
  if (predictor.segmentation()) return fmt::format("{}: area {}", terminal(file, 60), shares);
  return fmt::format("{}: {} ({})", terminal(file, 60), terminal(predictor.contract().classes[prediction.chosen], 30), shares);
}

/// 0 when every image got an answer, 1 when one was refused.
Result<int> predict(const Arguments& a) {
  auto predictor = TRY(deploy::Predictor::load(a.model));
  if (!a.masks.empty() && !predictor.segmentation()) return fail(Code::kInvalid, "--masks: {} classifies; there are no masks to write", a.model);
  if (!a.masks.empty()) {
    std::error_code error;
    fs::create_directories(a.masks, error);
    if (error) return fail(Code::kIo, "cannot make {}: {}", a.masks, error.message());
  }
  auto all = Json::array();
  std::size_t refused = 0, number = 0;
  for (const auto& file : TRY(list(a.images))) {
    const auto bytes = data::read_image_file(file);
    const auto prediction = bytes ? predictor.predict(*bytes) : std::unexpected(bytes.error());
    Json entry{{"file", file.string()}};
    if (prediction) {
      entry.update(to_json(*prediction, predictor));
      if (!a.masks.empty()) {
        const auto mask = fs::path(a.masks) / fmt::format("{:05}-{}.png", ++number, file.stem().string());
        TRY(write_mask(mask, prediction->mask, predictor.task().image_size));
        entry["mask"] = mask.string();
      }
      if (!a.json) std::cout << line(file.string(), *prediction, predictor) << "\n";
    } else {
      ++refused;
      entry["refused"] = prediction.error().message;
      if (!a.json) std::cerr << "preceptor: " << terminal(file.string(), 200) << ": no answer: " << prediction.error().message << "\n";
    }
    if (a.json) all.push_back(std::move(entry));
  }
  if (a.json) std::cout << all.dump(2) << "\n";
  return refused > 0 ? kFailed : kDone;
}

const RegisterCommand kPredict{
    "predict",
    {"Ask a model for the class of images, with calibrated probabilities; what it was not trained for is refused",
     "preceptor predict runs/demo/model.safetensors scan.png --json",
     [](CLI::App& app) -> std::function<int()> {
       auto a = std::make_shared<Arguments>();
       app.add_option("model", a->model, ".safetensors written by preceptor")->required();
       app.add_option("images", a->images, "a PNG, JPEG or BMP file, or a folder of them")->required();
       app.add_option("--masks", a->masks, "segmentation: folder for the masks, as PNG; grey value c is class c");
       app.add_flag("--json", a->json, "print JSON instead of text");
       return [a] {
         const auto code = predict(*a);
         return code ? *code : report(code.error());
       };
     }}};

}  // namespace
}  // namespace preceptor::app
