#include "models/graph.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/layers.h"
#include "tests/support/random_model.h"

namespace preceptor::models {
namespace {

/// Every size of the zoo, at the smallest image that it takes.
std::vector<FlatModel> small_zoo(int channels) {
  std::vector<FlatModel> models;
  for (const auto& name : zoo().names()) {
    auto model = test::random_model(name, {3, channels, 32});
    EXPECT_TRUE(model.has_value()) << name;
    if (!model) continue;
    model->network().eval();
    models.push_back(std::move(*model));
  }
  return models;
}

TEST(Graph, OfEveryModelGivesItsLogitsAtAnyBatch) {
  torch::NoGradGuard no_grad;
  for (auto& model : small_zoo(3)) {
    SCOPED_TRACE(model.spec().model.name);
    auto graph = trace(model.network(), model.spec().task);
    ASSERT_TRUE(graph.has_value()) << graph.error().message;
    torch::manual_seed(1);
    for (const int batch : {1, 4}) {
      const auto images = torch::randn({batch, 3, 32, 32});
      const auto wanted = model.network().forward(images);
      EXPECT_TRUE(torch::allclose(run_graph(*graph, images), wanted, 1e-5, 1e-6)) << "batch " << batch;
    }
  }
}

TEST(Graph, FreezingFoldsNormsAndKeepsTheLogits) {
  torch::NoGradGuard no_grad;
  for (auto& model : small_zoo(1)) {
    SCOPED_TRACE(model.spec().model.name);
    auto graph = trace(model.network(), model.spec().task);
    ASSERT_TRUE(graph.has_value()) << graph.error().message;
    torch::manual_seed(1);
    const auto images = torch::randn({2, 1, 32, 32});
    const auto before = model.store();
    const auto wanted = run_graph(*graph, images);
    const auto nodes = graph->nodes.size();
    freeze(*graph);
    EXPECT_LE(graph->nodes.size(), nodes);
    const auto error = (run_graph(*graph, images) - wanted).abs().max().item<double>();
    EXPECT_LE(error, 1e-4 * std::max(1.0, wanted.abs().max().item<double>()));
    EXPECT_EQ(model.store(), before) << "the network's own tensors must stay";
    for (const auto& node : graph->nodes)
      EXPECT_FALSE(node.op == "convolution" && graph->values[std::size_t(node.input("weight"))].tensor.requires_grad()) << "a frozen graph has constants only";
  }
}

TEST(Graph, NamesParametersAndMarksWhatGrowsWithTheBatch) {
  auto model = create_at_size({"resnet18", 0.25}, {5, 3, 32}).value();
  const auto graph = trace(model.network(), model.spec().task).value();
  EXPECT_EQ(graph.values[std::size_t(graph.logits)].shape, (std::vector<std::int64_t>{1, 5}));
  EXPECT_EQ(graph.values[std::size_t(graph.logits)].batched, (std::vector<bool>{true, false}));
  const auto& first = graph.nodes.front();
  EXPECT_EQ(first.op, "convolution");
  EXPECT_EQ(graph.values[std::size_t(first.input("weight"))].name, "conv1.weight");
  EXPECT_EQ(first.ints("stride"), (std::vector<std::int64_t>{1, 1}));
  EXPECT_THROW(first.argument("no such"), std::logic_error);
}

TEST(Graph, ABatchNormBehindAConvolutionThatOthersReadStays) {
  struct Forked : Model {
    Forked() : conv_(register_module("conv", conv(1, 2, 3))), norm_(register_module("norm", norm(2))) {}
    torch::Tensor forward(torch::Tensor x) override {
      const auto y = conv_(x);
      return (norm_(y) + y).mean({2, 3});
    }
    Conv2d conv_;
    BatchNorm2d norm_;
  } network;
  network.eval();
  torch::NoGradGuard no_grad;
  network.norm_->running_mean.fill_(0.5);
  auto graph = trace(network, {2, 1, 8}).value();
  freeze(graph);
  EXPECT_TRUE(std::ranges::any_of(graph.nodes, [](const Node& n) { return n.op == "batch_norm"; }));
  const auto images = torch::randn({2, 1, 8, 8});
  EXPECT_TRUE(torch::allclose(run_graph(graph, images), network.forward(images), 1e-5, 1e-6));
}

}  // namespace
}  // namespace preceptor::models
