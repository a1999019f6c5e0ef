#include "deploy/onnx.h"

#include <gmock/gmock.h>
#include <onnx/onnx_pb.h>

#include "deploy/export.h"
#include "models/layers.h"
#include "tests/deploy/made.h"
#include "tests/deploy/onnx_runtime.h"

namespace preceptor::deploy {
namespace {

using test::OnnxRuntime;
using testing::HasSubstr;

double largest(const torch::Tensor& x) { return x.abs().max().item<double>(); }
double rms(const torch::Tensor& x) { return x.square().mean().sqrt().item<double>(); }

/// A model file's export on some images, and what our own networks say of them.
struct Case {
  std::string label;
  std::size_t number;
  torch::Tensor ours, unrounded;
};

class Zoo {
 public:
  /// Exports the model and has it run on one image, and on three more. unrounded: the model in float32.
  void add(const std::string& label, models::FlatModel& model, models::FlatModel& unrounded, const torch::Tensor& images) {
    torch::NoGradGuard no_grad;
    const auto file = dir_ / (label + ".safetensors"), onnx = dir_ / (label + ".onnx");
    EXPECT_TRUE(models::save_model(file, model));
    const auto done = export_model(file, Format::kOnnx, onnx);
    EXPECT_TRUE(done.has_value()) << label << ": " << done.error().message;
    if (!done) return;
    for (const int batch : {1, 3}) {
      const auto some = images.slice(0, batch - 1, 2 * batch - 1);
      cases_.push_back({fmt::format("{}, batch {}", label, batch), runtime_.add(onnx, some), model.forward(some).contiguous(),
                        unrounded.forward(some).contiguous()});
    }
  }
  /// Calls check(case, logits of ONNX Runtime) for every case.
  template <class Check>
  void run(Check check) {
    runtime_.run();
    for (const auto& one : cases_) {
      SCOPED_TRACE(one.label);
      const auto theirs = runtime_.logits(one.number, one.ours);
      if (theirs.defined()) check(one, theirs);
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
      zoo.add(fmt::format("{}-{}", name, channels), model, model, images);
    }
  }
  double worst = 0;
  zoo.run([&](const Case& one, const torch::Tensor& theirs) {
    const auto error = largest(theirs - one.ours) / std::max(1.0, largest(one.ours));
    EXPECT_LE(error, 1e-4);
    worst = std::max(worst, error);
  });
  std::printf("largest difference of logits: %.2g of max(1, largest logit)\n", worst);
}

// A sum that falls between two steps goes one way here and the other way there, and every layer behind makes more of it.
// So of deep networks no more can be said than that both are about as far from each other as rounding is from float32.
TEST(Onnx, OfEveryModelInEightBitsIsAboutAsNearToOursAsRoundingIsToFloat) {
  if (!OnnxRuntime::is_there()) GTEST_SKIP() << "needs ONNX Runtime: scripts/onnx-runtime.sh";
  Zoo zoo;
  const auto images = test::images(1, 16);
  for (const auto& name : models::zoo().names()) {
    auto model = test::made_model(name, 1);
    auto eight = test::rounded(model, images);
    zoo.add(name, eight, model, images);
  }
  zoo.run([&](const Case& one, const torch::Tensor& theirs) {
    const auto rounding = rms(one.ours - one.unrounded);
    EXPECT_GT(rounding, 0);
    EXPECT_LE(rms(theirs - one.ours), 4 * rounding);
  });
}

TEST(Onnx, OfAShallowNetworkInEightBitsGivesOurLogits) {
  if (!OnnxRuntime::is_there()) GTEST_SKIP() << "needs ONNX Runtime: scripts/onnx-runtime.sh";
  struct Shallow : models::Model {
    Shallow() {
      register_module("first", first);
      register_module("norm", norm);
      register_module("depthwise", depthwise);
      register_module("head", head);
    }
    torch::Tensor forward(torch::Tensor x) override {
      const auto y = torch::hardswish(depthwise(torch::relu(norm(first(x)))));
      return head(y.flatten(2).transpose(1, 2)).mean(1);
    }
    models::Conv2d first = models::conv(1, 8, 3), depthwise = models::conv(8, 8, 3, 2, 8);
    models::BatchNorm2d norm = models::norm(8);
    models::Linear head{8, 3};
  } network;
  torch::NoGradGuard no_grad;
  torch::manual_seed(1);
  network.norm->running_mean.uniform_(-0.3, 0.3);
  network.norm->weight.uniform_(0.5, 1.5);
  for (models::Adaptable* layer : std::initializer_list<models::Adaptable*>{network.first.get(), network.depthwise.get(), network.head.get()})
    layer->round(models::Rounding::kObserved);
  const auto images = test::images(1, 8);
  network.train();
  network.norm->eval();
  network.forward(images);
  network.eval();
  auto graph = models::trace(network, {3, 1, test::kSize}).value();
  models::freeze(graph);
  test::TempDir dir;
  ASSERT_TRUE(write_file(dir / "shallow.onnx", std::string_view(to_onnx(graph, "shallow", {}).value())));
  OnnxRuntime runtime;
  const auto number = runtime.add(dir / "shallow.onnx", images);
  runtime.run();
  const auto ours = network.forward(images), theirs = runtime.logits(number, ours);
  ASSERT_TRUE(theirs.defined());
  EXPECT_LE(largest(theirs - ours), 1e-3 * largest(ours));
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
