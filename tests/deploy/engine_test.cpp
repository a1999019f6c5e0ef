#include "deploy/engine.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/support/random_model.h"

namespace preceptor::deploy {
namespace {

/// In float64: with random statistics logits reach the hundreds, and LibTorch's own float32 is off by more than a bound can be.
models::Graph in_double(models::Graph graph) {
  for (auto& value : graph.values)
    if (value.tensor.defined() && value.tensor.is_floating_point()) value.tensor = value.tensor.to(torch::kFloat64);
  return graph;
}

class EveryModel : public testing::TestWithParam<std::string> {};

TEST_P(EveryModel, GivesTheGraphsLogitsAtAnySizeAndBatch) {
  at::set_num_threads(1);
  torch::NoGradGuard no_grad;
  const std::pair<int, int> inputs[] = {{1, 32}, {3, 28}, {3, 64}};
  for (const auto& [channels, size] : inputs) {
    auto model = preceptor::test::random_model(GetParam(), {3, channels, size});
    if (!model) continue;  // not every stem takes 28 px
    SCOPED_TRACE(fmt::format("{} channels, {} px", channels, size));
    model->network().eval();
    model->network().fuse();
    auto traced = models::trace(model->network(), model->spec().task);
    if (!traced) continue;  // a network that pads by the image's size has no one graph
    models::freeze(*traced);
    auto engine = Engine::create(*traced).value();
    const auto exact = in_double(*traced);
    torch::manual_seed(1);
    for (const int batch : {1, 3, 1}) {
      const auto images = torch::randn({batch, channels, size, size});
      const auto wanted = models::run_graph(exact, images.to(torch::kFloat64));
      const auto got = engine.logits(images);
      ASSERT_EQ(got.sizes(), wanted.sizes());
      const auto error = (got - wanted).abs().max().item<double>();
      EXPECT_LE(error, 1e-4 * std::max(1.0, wanted.abs().max().item<double>())) << "batch " << batch;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Zoo, EveryModel, testing::ValuesIn(models::zoo().names()), [](const auto& name) { return name.param; });

TEST(Engine, RunsConvolutionalStudentsWithoutLibTorch) {
  for (const std::string name : {"shufflenet_v2", "mobilenet_v2", "mobilenet_v3_small", "mobileone", "repvit", "resnet18", "resnet50"}) {
    auto model = preceptor::test::random_model(name, {3, 3, 64}).value();
    auto engine = Engine::create(model).value();
    for (const auto& step : engine.steps()) EXPECT_FALSE(step.fallback) << name << ": " << step.text;
  }
}

TEST(Engine, TensorsThatDoNotMeetShareMemory) {
  auto model = preceptor::test::random_model("mobilenet_v2", {3, 3, 64}).value();
  auto engine = Engine::create(model).value();
  // The widest layer's input and output, 6·16 and 16 channels of 64×64 at most four times over; all of them would be 13 MB.
  EXPECT_LT(engine.bytes().arena, std::size_t(4) << 20);
  EXPECT_GT(engine.bytes().weights, model.space().size() * sizeof(float) / 2);
}

TEST(Engine, ThrowsForImagesOfAnotherSize) {
  auto model = preceptor::test::random_model("mobilenet_v2", {3, 3, 64}).value();
  auto engine = Engine::create(model).value();
  EXPECT_THROW(engine.logits(torch::zeros({1, 3, 32, 32})), std::logic_error);
}

}  // namespace
}  // namespace preceptor::deploy
