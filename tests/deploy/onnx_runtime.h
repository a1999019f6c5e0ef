#pragma once
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "common/file.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace preceptor::deploy::test {

/// ONNX files on images, run by one process of Node for all of them: starting the runtime costs more than a small network.
class OnnxRuntime {
 public:
  static bool is_there() { return std::filesystem::exists(kPackage); }

  /// To be run later. Returns the case's number.
  std::size_t add(const std::filesystem::path& model, const torch::Tensor& images) {
    const auto pixels = images.contiguous();
    const auto number = cases_.size();
    const auto file = dir_ / std::to_string(number);
    const std::span floats(pixels.data_ptr<float>(), std::size_t(pixels.numel()));
    EXPECT_TRUE(write_file(file, std::as_bytes(floats)));
    cases_.push_back({{"model", model.string()}, {"input", file.string()}, {"shape", pixels.sizes().vec()}, {"output", file.string() + ".out"}});
    return number;
  }
  void run() {
    EXPECT_TRUE(write_file(dir_ / "cases.json", cases_.dump()));
    preceptor::test::Process node({"/usr/bin/env", "node", "tests/deploy/run_onnx.js", std::filesystem::absolute(kPackage).string(), (dir_ / "cases.json").string()},
                                  dir_ / "log");
    EXPECT_EQ(node.wait(), 0) << node.output();
  }
  /// What a case gave, shaped like `wanted`; fails the test and gives nothing where the runtime refused it.
  torch::Tensor logits(std::size_t number, const torch::Tensor& wanted) const {
    const std::string file = cases_[number]["output"];
    if (const auto error = read_text(file + ".error", 1 << 20)) {
      ADD_FAILURE() << *error;
      return {};
    }
    const auto bytes = read_file(file, 1 << 28).value_or(Bytes());
    EXPECT_EQ(bytes.size(), wanted.nbytes());
    if (bytes.size() != wanted.nbytes()) return {};
    return torch::from_blob(const_cast<std::byte*>(bytes.data()), wanted.sizes()).clone();
  }

 private:
  static constexpr const char* kPackage = "build/onnxruntime/node_modules/onnxruntime-node";
  preceptor::test::TempDir dir_;
  nlohmann::json cases_ = nlohmann::json::array();
};

}  // namespace preceptor::deploy::test
