#include "models/batch_norm.h"

#include "models/kernels/simd_targets.h"

#include <gmock/gmock.h>
#include <hwy/targets.h>
#include <torch/torch.h>

#include "models/flat_model.h"
#include "models/graph.h"
#include "models/kernels/kernels.h"
#include "models/structure.h"
#include "tests/support/temp_dir.h"

namespace preceptor::models {
namespace {

using testing::HasSubstr;

struct Shape {
  int images, channels, height, width, groups;
};
// Fewer channels than lanes, odd ones, a whole block of vectors and a tail, one pixel, one group.
const std::vector<Shape> kShapes{{2, 3, 5, 4, 1}, {3, 8, 7, 7, 2}, {2, 24, 6, 5, 6}, {2, 58, 7, 9, 2}, {1, 116, 4, 4, 4}, {3, 96, 1, 1, 16}, {2, 70, 3, 3, 7}};

torch::Tensor image(const Shape& s, std::uint64_t seed, float offset = 0) {
  RandomStream random(seed, "image");
  auto x = torch::empty({s.images, s.height, s.width, s.channels});
  for (std::int64_t i = 0; i < x.numel(); ++i) x.data_ptr<float>()[i] = float(random.normal()) + offset;
  return x.permute({0, 3, 1, 2});
}

double error(const torch::Tensor& got, const torch::Tensor& expected) {
  return ((got.to(torch::kFloat64) - expected).norm() / expected.norm().clamp_min(1e-12)).item<double>();
}

/// Runs the test once for each instruction set of this machine.
template <class Test>
void on_every_target(const Test& test) {
  for (const auto target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    SCOPED_TRACE(kernels::target());
    test();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(GroupNorm, GivesValuesAndGradientsOfItsFormulaOnEveryInstructionSet) {
  on_every_target([] {
    for (const auto& s : kShapes) {
      SCOPED_TRACE(fmt::format("{} channels in {} groups", s.channels, s.groups));
      const auto x = image(s, 1, 3).requires_grad_(), grad = image(s, 2);
      const auto weight = (torch::arange(s.channels, torch::kFloat32) * 0.1 - 1).requires_grad_(),
                 bias = (torch::arange(s.channels, torch::kFloat32) * 0.03).requires_grad_();
      const auto y = kernels::group_norm(x, s.groups, weight, bias, 1e-5);
      const auto got = torch::autograd::grad({y}, {x, weight, bias}, {grad});
      std::vector<torch::Tensor> exact;
      for (const auto& t : {x, weight, bias}) exact.push_back(t.detach().to(torch::kFloat64).requires_grad_());
      const auto z = torch::group_norm(exact[0], s.groups, exact[1], exact[2], 1e-5);
      const auto expected = torch::autograd::grad({z}, exact, {grad.to(torch::kFloat64)});
      EXPECT_LT(error(y.detach(), z.detach()), 2e-6);
      for (std::size_t i = 0; i < 3; ++i) EXPECT_LT(error(got[i], expected[i]), 2e-5) << i;
    }
  });
}

TEST(GroupNorm, GradientsOfScaleAndShiftAreKnownImageByImage) {
  on_every_target([] {
    for (const auto& s : kShapes) {
      const auto x = image(s, 3, -2), grad = image(s, 4);
      const auto exact = kernels::group_norm_gradients_reference(x.to(torch::kFloat64), s.groups, 1e-5, grad.to(torch::kFloat64));
      EXPECT_LT(error(kernels::group_norm_gradients(x, s.groups, 1e-5, grad), exact), 5e-6) << s.channels;
    }
  });
}

TEST(GroupNorm, GradientsOfDepthwiseWeightsAreKnownImageByImage) {
  on_every_target([] {
    for (const auto& s : kShapes)
      for (const int kernel : {3, 5, 7})
        for (const int stride : {1, 2}) {
          const auto x = image(s, 5).to(torch::kFloat64), weight = torch::zeros({s.channels, 1, kernel, kernel}, torch::kFloat64).requires_grad_();
          const auto y = torch::conv2d(x, weight, {}, stride, kernel / 2, 1, s.channels);
          const auto grad = torch::cos(torch::arange(y.numel(), torch::kFloat64)).view(y.sizes());
          const auto each = kernels::depthwise_gradients(x.to(torch::kFloat32), grad.to(torch::kFloat32), kernel, stride, kernel / 2);
          EXPECT_LT(error(each, kernels::depthwise_gradients_reference(x, grad, kernel, stride, kernel / 2)), 2e-6) << s.channels << " " << kernel;
          const auto sum = torch::autograd::grad({y}, {weight}, {grad})[0];
          EXPECT_LT(error(each.sum(0).permute({2, 0, 1}).unsqueeze(1), sum), 2e-6) << s.channels << " " << kernel << " " << stride;
        }
  });
}

TEST(GroupNorm, GroupsDivideTheChannelsAndLeaveFourToEach) {
  for (std::int64_t channels = 1; channels < 300; ++channels) {
    const auto groups = norm_groups(channels);
    EXPECT_EQ(channels % groups, 0) << channels;
    EXPECT_TRUE(groups == 1 || channels / groups >= 4) << channels;
    EXPECT_LE(groups, 16);
  }
  EXPECT_EQ(norm_groups(24), 6);
  EXPECT_EQ(norm_groups(58), 2);
  EXPECT_EQ(norm_groups(1024), 16);
}

ModelSpec grouped(const std::string& name, int classes = 3) {
  ModelSpec spec{{name, name == "shufflenet_v2" || name == "mobilenet_v2" ? 0.5 : 1.0, "small"}, {classes, 1, 28}};
  spec.model.normalisation = "group";
  return spec;
}

class Grouped : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Students, Grouped, testing::Values("mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2", "resnet18"));

TEST_P(Grouped, ModelsHaveNoStatisticsAndTheSameParameters) {
  auto spec = grouped(GetParam());
  const auto group = FlatModel::create(spec).value();
  spec.model.normalisation = "batch";
  const auto batch = FlatModel::create(spec).value();
  for (const auto& piece : group.space().pieces()) EXPECT_FALSE(is_statistic(piece.role)) << piece.name;
  EXPECT_EQ(group.space().trainable(), batch.space().trainable());
  EXPECT_EQ(group.space().size(), group.space().trainable());
  EXPECT_NE(group.space().architecture_hash(), batch.space().architecture_hash());
}

TEST_P(Grouped, ModelsGiveEachImageTheSameLogitsInAnyCompany) {
  auto model = FlatModel::create(grouped(GetParam())).value();
  model.initialise(RandomStream(1, "init"));
  model.network().train();
  torch::NoGradGuard no_grad;
  const auto images = image({4, 1, 28, 28, 1}, 7);
  const auto together = model.forward(images);
  for (std::int64_t i = 0; i < 4; ++i)
    EXPECT_LT(error(model.forward(images.narrow(0, i, 1)), together.narrow(0, i, 1).to(torch::kFloat64)), 1e-5);
}

TEST_P(Grouped, ModelsAreSavedLoadedAndTraced) {
  test::TempDir dir;
  auto model = FlatModel::create(grouped(GetParam())).value();
  model.initialise(RandomStream(1, "init"));
  ASSERT_TRUE(save_model(dir.path() / "m.safetensors", model));
  auto loaded = load_model(dir.path() / "m.safetensors");
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->model.spec().model.normalisation, "group");
  EXPECT_EQ(loaded->model.store(), model.store());
  torch::NoGradGuard no_grad;
  model.network().eval();
  const auto images = image({2, 1, 28, 28, 1}, 8);
  const auto graph = trace(model.network(), model.spec().task).value();
  EXPECT_LT(error(run_graph(graph, images), model.forward(images).to(torch::kFloat64)), 1e-5);
}

TEST(GroupNorm, ModelsWhoseBranchesFoldBatchNormsAreRefused) {
  for (const auto* name : {"mobileone", "repvit"}) {
    const auto model = FlatModel::create(grouped(name));
    ASSERT_FALSE(model) << name;
    EXPECT_THAT(model.error().message, HasSubstr("normalisation: group"));
  }
}

}  // namespace
}  // namespace preceptor::models
