#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "common/file.h"
#include "models/flat_model.h"
#include "models/graph.h"
#include "models/layers.h"
#include "tests/support/temp_dir.h"

/// Layers that round to eight bits, and their model files.
namespace preceptor::models {
namespace {

using testing::HasSubstr;

constexpr int kImages = 4;

at::Tensor images() {
  torch::manual_seed(7);
  return torch::randn({kImages, 1, 28, 28});
}

/// ShuffleNetV2 with three layers that round, after one pass in training mode.
FlatModel rounding_model(const std::string& how = "observed") {
  ModelSpec spec{{"shufflenet_v2", 0.5, "small"}, {3, 1, 28}};
  auto plain = FlatModel::create(spec).value();
  plain.initialise(RandomStream(1, "init"));
  spec.structure.int8 = {{"conv1.0", how}, {"stage2.0.branch2.3", how}, {"fc", how}};
  auto model = FlatModel::create(spec).value();
  torch::NoGradGuard no_grad;
  auto to = model.network().named_parameters();
  for (const auto& item : plain.network().named_parameters()) to[item.key()].copy_(item.value());
  if (to.contains("fc.input_step"))
    for (const auto& [layer, edit] : spec.structure.int8) to[layer + ".input_step"].zero_();
  model.network().train();
  for (int i = 0; i < 20; ++i) model.forward(images());
  model.network().eval();
  return model;
}

Conv2d made_convolution() {
  torch::manual_seed(1);
  return Conv2d(torch::nn::Conv2dOptions(3, 4, 3).padding(1));
}

TEST(Rounding, OfWeightsGivesCodesWithinAStepAndIsDoneOnce) {
  torch::manual_seed(2);
  auto weight = torch::randn({8, 3, 3, 3}) * torch::logspace(-6, 3, 8).view({8, 1, 1, 1});
  weight[3].zero_();
  const auto step = rounding_step(weight), once = rounded(weight);
  EXPECT_TRUE(((once - weight).abs() <= step * 0.500001).all().item<bool>());
  EXPECT_TRUE(torch::equal(rounded(once), once));
  EXPECT_TRUE(torch::equal(rounding_step(once), step));
  EXPECT_EQ((once / step).round().abs().amax().item<float>(), 127);
}

TEST(Rounding, CommutesWithTheBatchNormBehind) {
  torch::manual_seed(3);
  const auto weight = torch::randn({16, 8, 3, 3});
  const auto scale = (torch::rand({16, 1, 1, 1}) + 0.1) * torch::where(torch::rand({16, 1, 1, 1}) > 0.5, 1.0, -1.0);
  const auto codes = [](const at::Tensor& w) { return (w / rounding_step(w)).round(); };
  const auto folded_first = codes(weight * scale), folded_after = codes(weight) * scale.sign();
  // A product rounds once more, which can tip a value that lies on the border of two codes.
  EXPECT_LE((folded_first - folded_after).abs().max().item<float>(), 1);
  EXPECT_LE((folded_first != folded_after).sum().item<int>(), 2);
}

TEST(Rounding, OfInputsIsToTheNearestStepHalvesToEvenAndWithinTheRange) {
  torch::NoGradGuard no_grad;
  Linear layer(torch::nn::LinearOptions(5, 5).bias(false));
  layer->weight.copy_(torch::eye(5));
  layer->round(Rounding::kObserved);
  layer->eval();
  auto range = layer->named_buffers()["input_range"];
  range[0] = -25.5;  // a step of 0.5, zero at 51
  range[1] = 102.0;
  const auto y = layer(torch::tensor({{0.25, 0.75, -0.3, 500.0, -500.0}}));
  EXPECT_TRUE(torch::allclose(y, torch::tensor({{0.0, 1.0, -0.5, 102.0, -25.5}}))) << y;
}

TEST(Rounding, BeforeAnyRangeIsSeenDoesNothing) {
  auto layer = made_convolution();
  auto plain = made_convolution();
  layer->round(Rounding::kObserved);
  layer->eval();
  plain->eval();
  const auto x = torch::randn({2, 3, 8, 8});
  EXPECT_TRUE(torch::equal(layer(x), plain(x)));
}

TEST(Rounding, InTrainingIsThatOfInferenceAndPassesGradients) {
  for (const auto how : {Rounding::kObserved, Rounding::kLearned}) {
    auto layer = made_convolution();
    auto plain = made_convolution();
    layer->round(how);
    const auto x = torch::randn({2, 3, 8, 8}).requires_grad_();
    const auto y = layer(x);
    const double error = (y - plain(x)).abs().max().item<double>();
    EXPECT_LT(error, 0.1);
    EXPECT_GT(error, 0);
    y.square().sum().backward();
    EXPECT_GT(x.grad().abs().sum().item<double>(), 0);
    EXPECT_GT(layer->weight.grad().abs().sum().item<double>(), 0);
    if (how == Rounding::kLearned) {
      EXPECT_GT(layer->named_parameters()["input_step"].grad().abs().item<double>(), 0);
    }
    layer->eval();
    EXPECT_TRUE(torch::equal(layer(x), y)) << "evaluation mode with gradients";
    torch::NoGradGuard no_grad;
    EXPECT_TRUE(torch::equal(layer(x), y)) << "and without";
  }
}

TEST(Rounding, IsTracedAsConstantWeightsAndFakeQuantisedInputs) {
  for (const std::string how : {"observed", "learned"}) {
    SCOPED_TRACE(how);
    auto model = rounding_model(how);
    torch::NoGradGuard no_grad;
    auto graph = trace(model.network(), model.spec().task);
    ASSERT_TRUE(graph.has_value()) << graph.error().message;
    const auto wanted = model.forward(images());
    EXPECT_TRUE(torch::allclose(run_graph(*graph, images()), wanted, 1e-5, 1e-5));
    freeze(*graph);
    int inputs = 0;
    for (const auto& node : graph->nodes) {
      inputs += node.op == "fake_quantize_per_tensor_affine";
      EXPECT_TRUE(node.op != "round" && node.op != "abs" && node.op != "amax") << to_text(*graph);
      if (node.op == "convolution" || node.op == "linear") {
        EXPECT_EQ(int(graph->values[std::size_t(node.input("weight"))].kind == GraphValue::Kind::kComputed), 0);
      }
    }
    EXPECT_EQ(inputs, 3) << to_text(*graph);
    // A norm's fold moves an input by a rounding, which can cross the border of two codes.
    EXPECT_LT((run_graph(*graph, images()) - wanted).abs().max().item<double>(), 0.05 * wanted.abs().max().item<double>());
  }
}

TEST(RoundingFile, HoldsIntegersAndGivesTheSameOnesBack) {
  const test::TempDir dir;
  auto model = rounding_model("learned");
  ASSERT_TRUE(save_model(dir / "m.safetensors", model));
  const auto file = SafetensorsFile::load(dir / "m.safetensors").value();
  ASSERT_TRUE(file.find("fc.weight"));
  EXPECT_EQ(file.find("fc.weight")->dtype, "I8");
  EXPECT_EQ(file.find("fc.weight.scale")->shape, (std::vector<std::int64_t>{3}));
  EXPECT_EQ(file.find("fc.bias")->dtype, "F32");
  EXPECT_EQ(file.find("stage2.0.branch2.0.weight")->dtype, "F32");
  auto loaded = load_model(dir / "m.safetensors");
  ASSERT_TRUE(loaded) << loaded.error().message;
  ASSERT_TRUE(save_model(dir / "again.safetensors", loaded->model));
  EXPECT_EQ(read_file(dir / "again.safetensors", 1 << 24).value(), read_file(dir / "m.safetensors", 1 << 24).value());
  loaded->model.network().eval();
  torch::NoGradGuard no_grad;
  EXPECT_TRUE(torch::equal(loaded->model.forward(images()), model.forward(images())));
}

TEST(RoundingFile, ThatLiesIsRefused) {
  const test::TempDir dir;
  const auto model = rounding_model();
  ASSERT_TRUE(save_model(dir / "m.safetensors", model));
  const auto file = SafetensorsFile::load(dir / "m.safetensors").value();
  const auto refuse = [&](auto change, const std::string& reason) {
    std::vector<Bytes> bytes;
    auto tensors = file.tensors();
    for (auto& tensor : tensors) {
      if (!tensor.name.starts_with("fc.weight")) continue;
      bytes.emplace_back(tensor.data.begin(), tensor.data.end());
      change(tensor, bytes.back());
      tensor.data = bytes.back();
    }
    ASSERT_TRUE(write_file(dir / "bad.safetensors", encode_safetensors(tensors, file.metadata())));
    const auto loaded = load_model(dir / "bad.safetensors");
    ASSERT_FALSE(loaded) << reason;
    EXPECT_EQ(loaded.error().code, Code::kCorrupt);
    EXPECT_THAT(loaded.error().message, HasSubstr(reason));
  };
  const auto scale = [](float value) {
    return [value](StoredTensor& tensor, Bytes& bytes) {
      if (tensor.name.ends_with("scale")) std::memcpy(bytes.data(), &value, sizeof value);
    };
  };
  refuse(scale(NAN), "what no rounding gives");
  refuse(scale(-1), "what no rounding gives");
  refuse(scale(0), "what no rounding gives");
  refuse(scale(INFINITY), "not finite");
  refuse(scale(3e38f), "not finite");
  refuse([](StoredTensor& tensor, Bytes& bytes) { if (tensor.dtype == "I8") bytes[5] = std::byte(0x80); }, "what no rounding gives");
  refuse([](StoredTensor& tensor, Bytes& bytes) {
    if (!tensor.name.ends_with("scale")) return;
    tensor.shape = {1};
    bytes.resize(4);
  }, "'fc.weight.scale' is missing or is not float32 [3]");
  refuse([](StoredTensor& tensor, Bytes&) { if (tensor.dtype == "I8") tensor.dtype = "U8"; }, "is not int8");
  refuse([](StoredTensor& tensor, Bytes&) { if (tensor.name.ends_with("scale")) tensor.name = "fc.weight.other"; }, "'fc.weight.scale'");
}

}  // namespace
}  // namespace preceptor::models
