#include "deploy/onnx.h"

#include <gmock/gmock.h>
#include <onnx/onnx_pb.h>

#include "deploy/export.h"
#include "tests/deploy/made.h"
#include "tests/deploy/onnx_runtime.h"

namespace preceptor::deploy {
namespace {

using test::OnnxRuntime;
using testing::HasSubstr;

/// A model file's export, and what our own network says of some images.
struct Case {
  std::string label;
  std::size_t number;
  torch::Tensor wanted;
};

double largest(const torch::Tensor& x) { return x.abs().max().item<double>(); }

class Zoo {
 public:
  /// Exports the model and has it run on the first image, and on the three behind it.
  void add(const std::string& label, models::FlatModel& model, const torch::Tensor& images) {
    torch::NoGradGuard no_grad;
    const auto file = dir_ / (label + ".safetensors"), onnx = dir_ / (label + ".onnx");
    EXPECT_TRUE(models::save_model(file, model));
    const auto done = export_model(file, Format::kOnnx, onnx);
    EXPECT_TRUE(done.has_value()) << label << ": " << done.error().message;
    if (!done) return;
    for (const int batch : {1, 3}) {
      const auto some = images.slice(0, batch - 1, 2 * batch - 1);
      cases_.push_back({fmt::format("{}, batch {}", label, batch), runtime_.add(onnx, some), model.forward(some).contiguous()});
    }
  }
  /// Calls check(label, theirs, ours) for every case.
  template <class Check>
  void run(Check check) {
    runtime_.run();
    for (const auto& one : cases_) {
      SCOPED_TRACE(one.label);
      const auto theirs = runtime_.logits(one.number, one.wanted);
      if (theirs.defined()) check(one.label, theirs, one.wanted);
    }
  }

 private:
  test::TempDir dir_;
  OnnxRuntime runtime_;
  std::vector<Case> cases_;
};

TEST(Onnx, OfEveryModelGivesOurLogitsInOnnxRuntimeAtAnyBatch) {
  if (!OnnxRuntime::is_there()) GTEST_SKIP() << "needs ONNX Runtime: scripts/onnx-runtime.sh";
  Zoo zoo;
  for (const int channels : {1, 3}) {
    const auto images = test::images(channels, 5);
    for (const auto& name : models::zoo().names()) {
      auto model = test::made_model(name, channels);
      zoo.add(fmt::format("{}-{}", name, channels), model, images);
    }
  }
  double worst = 0;
  zoo.run([&](const std::string& label, const torch::Tensor& theirs, const torch::Tensor& ours) {
    const auto error = largest(theirs - ours) / std::max(1.0, largest(ours));
    EXPECT_LE(error, 1e-4);
    worst = std::max(worst, error);
    if (std::getenv("PRECEPTOR_DEBUG")) std::printf("%-40s %.3g of %.3g\n", label.c_str(), largest(theirs - ours), largest(ours));
  });
  RecordProperty("worst", fmt::format("{:.3g}", worst));
}

TEST(Onnx, OfEveryModelInEightBitsGivesOurRoundedLogits) {
  if (!OnnxRuntime::is_there()) GTEST_SKIP() << "needs ONNX Runtime: scripts/onnx-runtime.sh";
  Zoo zoo;
  const auto images = test::images(1, 32);
  for (const auto& name : models::zoo().names()) {
    auto model = test::made_model(name, 1);
    auto eight = test::rounded(model, images);
    zoo.add(name, eight, images);
  }
  zoo.run([&](const std::string& label, const torch::Tensor& theirs, const torch::Tensor& ours) {
    if (std::getenv("PRECEPTOR_DEBUG"))
      std::printf("%-40s %.3g of %.3g, spread %.3g\n", label.c_str(), largest(theirs - ours), largest(ours), ours.std().item<double>());
  });
}

TEST(Onnx, FileTellsWhatItExpectsAndHoldsEightBitWeightsAsSuch) {
  const auto images = test::images(1, 8);
  auto model = test::made_model("resnet18", 1);
  auto eight = test::rounded(model, images);
  auto graph = models::trace(eight.network(), eight.spec().task).value();
  models::freeze(graph);
  onnx::ModelProto file;
  ASSERT_TRUE(file.ParseFromString(to_onnx(graph, "resnet18", {{"spec", "text"}}).value()));
  EXPECT_EQ(file.opset_import(0).version(), kOnnxOpset);
  EXPECT_EQ(file.metadata_props(0).key(), "spec");
  EXPECT_EQ(file.metadata_props(0).value(), "text");
  const auto& input = file.graph().input(0);
  EXPECT_EQ(input.name(), "images");
  EXPECT_EQ(input.type().tensor_type().shape().dim(0).dim_param(), "batch");
  EXPECT_EQ(input.type().tensor_type().shape().dim(2).dim_value(), test::kSize);
  std::size_t integers = 0;
  for (const auto& tensor : file.graph().initializer())
    if (tensor.data_type() == onnx::TensorProto::INT8 && tensor.dims_size() > 1) ++integers;
  EXPECT_EQ(integers, eight.spec().structure.int8.size());
}

TEST(Onnx, AnOperatorWithoutAFormIsNamed) {
  struct Sine : models::Model {
    torch::Tensor forward(torch::Tensor x) override { return torch::sin(x).mean({2, 3}); }
  } network;
  auto graph = models::trace(network, {1, 1, 8}).value();
  const auto file = to_onnx(graph, "sine", {});
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().code, Code::kInvalid);
  EXPECT_THAT(file.error().message, HasSubstr("'sin'"));
}

}  // namespace
}  // namespace preceptor::deploy
