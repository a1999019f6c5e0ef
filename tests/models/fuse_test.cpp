#include <gtest/gtest.h>
#include <torch/torch.h>

#include "models/flat_model.h"

namespace preceptor::models {
namespace {

/// Every parameter and statistic drawn at random, of a size that keeps the signal alive down to the logits.
void randomise(FlatModel& model, RandomStream random) {
  std::vector<float> values(model.space().size());
  for (const auto& piece : model.space().pieces()) {
    const auto target = std::span(values).subspan(piece.offset, piece.size);
    const bool weight = piece.role == Role::kWeight, matrix = weight && piece.shape.size() > 1;
    const bool positive = weight || piece.role == Role::kNormScale || piece.role == Role::kNormVariance;
    const double deviation = std::sqrt(2.0 * double(piece.shape[0]) / double(piece.size));
    for (auto& value : target)
      value = float(matrix ? deviation * random.normal() : positive ? random.uniform(0.5, 1.5) : random.uniform(-0.5, 0.5));
  }
  model.load(values);
}

std::int64_t count(Model& network) {
  std::int64_t parameters = 0;
  for (const auto& tensor : network.parameters()) parameters += tensor.numel();
  return parameters;
}

class Fuse : public testing::TestWithParam<std::string> {};

TEST_P(Fuse, LeavesTheOutputAsItWas) {
  const auto* architecture = *zoo().find(GetParam());
  const bool promised = std::ranges::any_of(architecture->published, &Published::fused);
  for (const auto& size : architecture->sizes) {
    for (const int channels : {1, 3}) {
      const int pixels = size.stem == "small" ? 28 : size.stem == "half" ? 64 : 224;
      ModelSpec spec{size, {5, channels, pixels}};
      SCOPED_TRACE(write_options(spec));
      auto model = FlatModel::create(spec);
      ASSERT_TRUE(model) << model.error().message;
      auto trial = *build(spec);
      trial->fuse();
      const bool fuses = count(*trial) != count(model->network());
      EXPECT_TRUE(fuses || !promised);
      if (!fuses) continue;

      randomise(*model, RandomStream(5, "fuse", {std::uint64_t(channels)}));
      torch::NoGradGuard no_grad;
      std::vector<float> pixel_values(std::size_t(2 * channels * pixels * pixels));
      RandomStream noise(6, "images");
      for (auto& value : pixel_values) value = float(noise.normal());
      const auto images = torch::from_blob(pixel_values.data(), {2, channels, pixels, pixels});
      model->network().eval();
      const auto before = model->forward(images);
      model->network().fuse();
      const auto after = model->forward(images);
      ASSERT_EQ(after.sizes(), before.sizes());
      const auto largest = before.abs().max().item<double>();
      EXPECT_LT((after - before).abs().max().item<double>(), 1e-5 * largest);
      // An error in an early layer shows only where the logits depend on the image.
      EXPECT_GT((before[0] - before[1]).abs().max().item<double>(), 0.01 * largest);
      EXPECT_FALSE(after.equal(before)) << "bit for bit: nothing was fused";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Zoo, Fuse, testing::ValuesIn(zoo().names()), [](const auto& name) { return name.param; });

}  // namespace
}  // namespace preceptor::models
