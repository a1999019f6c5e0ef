#include "deploy/kernels/int8.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>
#include <torch/torch.h>

#include <set>

#include "deploy/engine.h"
#include "deploy/profile.h"
#include "models/stem.h"
#include "models/structure.h"

namespace preceptor::deploy {
namespace {

using kernels::Activation;

/// Has the kernels run as on a CPU with no more than one of Highway's targets; the CPU's own again at the end.
class Forced {
 public:
  explicit Forced(std::int64_t target) { hwy::GetChosenTarget().Update(target); }
  ~Forced() { hwy::GetChosenTarget().DeInit(); }
};

constexpr std::int64_t kTargets[] = {HWY_AVX3_DL, HWY_AVX3, HWY_AVX2, HWY_SCALAR};

/// Random bytes with every fourth at an end of the range.
template <class T>
std::vector<T> bytes(RandomStream& random, std::size_t count, int low, int high) {
  std::vector<T> made(count);
  for (auto& b : made) {
    const auto way = int(random.uniform(0, 8));
    b = T(way == 0 ? low : way == 1 ? high : int(random.uniform(low, high + 1)));
  }
  return made;
}

std::vector<float> floats(RandomStream& random, std::size_t count, double low, double high) {
  std::vector<float> made(count);
  for (auto& f : made) f = float(random.uniform(low, high));
  return made;
}

/// Everything that a layer of integers gives.
struct Given {
  std::vector<std::int32_t> sums;
  std::vector<float> out;
  std::vector<std::uint8_t> grid;
  bool operator==(const Given&) const = default;
};

/// What an epilogue does, of which kernels know some by heart.
enum class Ends { kAll, kGrid, kFloats };

/// run(epilogue, sums) into fresh memory.
template <class Run>
Given given(std::int64_t rows, std::int64_t columns, Ends ends, Activation activation, const std::vector<float>& residual, const Run& run) {
  Given g{std::vector<std::int32_t>(std::size_t(rows * columns)), std::vector<float>(std::size_t(rows * columns)),
          std::vector<std::uint8_t>(std::size_t(rows * columns))};
  kernels::Epilogue e;
  e.before = activation;
  if (ends == Ends::kAll) e.residual = residual.data();
  e.residual_stride = e.out_stride = e.grid_stride = columns;
  if (ends != Ends::kGrid) e.out = g.out.data();
  if (ends != Ends::kFloats) e.grid = g.grid.data();
  e.inverse_scale = 1 / 0.037f;
  e.zero = 119;
  run(e, ends == Ends::kAll ? g.sums.data() : nullptr);
  return g;
}

constexpr std::size_t kSlack = 128;  // kernels read whole vectors

TEST(Int8, ProductsAreTheReferencesBitsOnEveryInstructionSet) {
  RandomStream random(1, "products");
  std::set<std::string> ran;
  for (int round = 0; round < 60; ++round) {
    const auto whole = [&](int low, int high) { return std::int64_t(random.uniform(low, high + 1)); };
    const auto rows = whole(1, 23), taps = round % 3 == 0 ? whole(1, 9) : 1, depth = whole(1, 75), columns = whole(1, 150), pixels = whole(1, 40);
    const auto left = bytes<std::uint8_t>(random, std::size_t(pixels * depth) + kSlack, 0, 255);
    const auto right = bytes<std::int8_t>(random, std::size_t(taps * depth * columns), -127, 127);
    const auto zero = std::int32_t(whole(0, 255));
    const auto matrix = kernels::pack_int8(right.data(), taps, depth, columns, 1, taps, depth * taps, floats(random, std::size_t(columns), 1e-4, 1e-3), 0.5f,
                                           zero, floats(random, std::size_t(columns), -1, 1));
    std::vector<std::int32_t> offsets;
    for (std::int64_t i = 0; i < rows * taps; ++i)
      offsets.push_back(whole(0, 7) == 0 ? kernels::kOutside : std::int32_t(whole(0, int(pixels - 1)) * depth));
    const std::vector<std::uint8_t> outside(std::size_t(depth) + kSlack, std::uint8_t(zero));
    const auto residual = floats(random, std::size_t(rows * columns) + kSlack, -1, 1);
    const kernels::TapRows<std::uint8_t> tap_rows{left.data(), offsets.data(), rows, outside.data()};
    constexpr std::pair<Ends, Activation> kCases[] = {{Ends::kAll, Activation::kNone}, {Ends::kAll, Activation::kRelu6}, {Ends::kGrid, Activation::kRelu6},
                                                      {Ends::kGrid, Activation::kHardswish}, {Ends::kFloats, Activation::kRelu}};
    for (const auto& [ends, activation] : kCases) {
      const auto wanted = given(rows, columns, ends, activation, residual,
                                [&](const auto& e, std::int32_t* sums) { kernels::gemm_int8_reference(matrix, tap_rows, e, sums); });
      for (const auto target : kTargets) {
        if (!(hwy::SupportedTargets() & target) && target != HWY_SCALAR) continue;
        Forced forced(target);
        ran.insert(kernels::int8_target());
        EXPECT_EQ(given(rows, columns, ends, activation, residual, [&](const auto& e, std::int32_t* sums) { kernels::gemm_int8(matrix, tap_rows, e, sums); }), wanted)
            << kernels::int8_target() << ": " << rows << " rows, " << taps << " taps of " << depth << ", " << columns << " columns";
      }
    }
  }
  EXPECT_GE(ran.size(), 2u) << "only one way was there to be compared";
}

TEST(Int8, DepthwiseConvolutionsAreTheReferencesBitsOnEveryInstructionSet) {
  RandomStream random(2, "depthwise");
  for (int round = 0; round < 60; ++round) {
    const auto whole = [&](int low, int high) { return std::int64_t(random.uniform(low, high + 1)); };
    const auto kernel = 2 * whole(0, 3) + 1, stride = whole(1, 2), size = whole(4, 19), channels = whole(1, 140), batch = whole(1, 2);
    const auto out = (size + kernel / 2 * 2 - kernel) / stride + 1;
    const kernels::Window w{batch, channels, size, size, out, out, kernel, kernel, stride, stride, kernel / 2, kernel / 2,
                            1, 1, size * size * channels, size * channels, channels};
    const auto images = bytes<std::uint8_t>(random, std::size_t(batch * size * size * channels) + kSlack, 0, 255);
    const auto weight = bytes<std::int8_t>(random, std::size_t(channels * kernel * kernel), -127, 127);
    const auto packed = kernels::pack_int8_depthwise(weight.data(), channels, kernel * kernel, floats(random, std::size_t(channels), 1e-4, 1e-3), 0.5f,
                                                     std::int32_t(whole(0, 255)), floats(random, std::size_t(channels), -1, 1));
    const auto rows = batch * out * out;
    const auto residual = floats(random, std::size_t(rows * channels) + kSlack, -1, 1);
    constexpr std::pair<Ends, Activation> kCases[] = {{Ends::kAll, Activation::kRelu}, {Ends::kGrid, Activation::kNone}, {Ends::kGrid, Activation::kRelu6},
                                                      {Ends::kGrid, Activation::kHardswish}, {Ends::kFloats, Activation::kRelu}};
    for (const auto& [ends, activation] : kCases) {
      const auto wanted = given(rows, channels, ends, activation, residual,
                                [&](const auto& e, std::int32_t* sums) { kernels::depthwise_int8_reference(w, packed, images.data(), e, sums); });
      for (const auto target : kTargets) {
        if (!(hwy::SupportedTargets() & target) && target != HWY_SCALAR) continue;
        Forced forced(target);
        EXPECT_EQ(given(rows, channels, ends, activation, residual,
                        [&](const auto& e, std::int32_t* sums) { kernels::depthwise_int8(w, packed, images.data(), e, sums); }),
                  wanted)
            << kernels::int8_target() << ": " << kernel << "×" << kernel << " by " << stride << ", " << size << " px, " << channels << " channels";
      }
    }
  }
}

/// The model with all its layers rounding, after a few passes that showed them their inputs.
models::FlatModel rounded(const std::string& name, int image_size) {
  auto spec = models::create_at_size((*models::zoo().find(name))->sizes.front(), {3, 3, image_size}).value().spec();
  spec.structure.fused = true;
  auto plain = models::FlatModel::create(spec).value();
  for (const auto& [layer, module] : models::adaptable_layers(plain.network())) spec.structure.int8[layer] = "observed";
  torch::NoGradGuard no_grad;
  torch::manual_seed(2);  // for LibTorch's default values, too: a structured network takes no others
  auto model = models::FlatModel::create(spec).value();
  model.network().train();
  for (int pass = 0; pass < 4; ++pass) model.network().forward(torch::randn({8, 3, image_size, image_size}));
  model.network().eval();
  return model;
}

class EveryRoundedModel : public testing::TestWithParam<std::string> {};

// Float32 on both sides differs in the last bits, so that a value between two steps of a grid goes to the one or the other:
// each such flip is a step of that layer, and later ones carry it on. Hence the width of the first bound. It cannot hold where
// LibTorch does not hold it against itself: images changed by one part in 5·10⁶, a unit in the last place, move the logits of
// mobilevit_v2 by 0.098 of the largest and those of efficientvit_b0 by 0.073. The second is what rounding itself costs.
TEST_P(EveryRoundedModel, GivesNearlyTheGraphsLogitsInIntegers) {
  at::set_num_threads(1);
  torch::NoGradGuard no_grad;
  auto model = rounded(GetParam(), 64);
  auto graph = models::trace(model.network(), model.spec().task).value();
  models::freeze(graph);
  auto engine = Engine::create(graph).value();
  const auto steps = engine.steps();
  EXPECT_TRUE(std::ranges::any_of(steps, [](const auto& step) { return step.text.contains(" int8"); }));
  const auto images = torch::randn({3, 3, 64, 64});
  const auto wanted = models::run_graph(graph, images), got = engine.logits(images);
  const bool steady = GetParam() != "mobilevit_v2" && GetParam() != "efficientvit_b0";
  if (steady) {
    EXPECT_LE((got - wanted).abs().max().item<double>(), 0.05 * std::max(1.0, wanted.abs().max().item<double>()));
  }
  auto plain = without_rounding(model).value();
  plain.network().eval();
  const auto in_float = plain.network().forward(images);
  const auto rms = [](const at::Tensor& x) { return x.square().mean().sqrt().item<double>(); };
  EXPECT_LE(rms(got - wanted), 2 * rms(wanted - in_float) + 1e-3 * rms(in_float));
}

INSTANTIATE_TEST_SUITE_P(Zoo, EveryRoundedModel, testing::ValuesIn(models::zoo().names()), [](const auto& name) { return name.param; });

TEST(Int8, BetweenLayersValuesStayBytes) {
  auto model = rounded("mobileone", 64);
  auto engine = Engine::create(model).value();
  int quantised = 0, layers = 0;
  for (const auto& step : engine.steps()) {
    quantised += step.text == "quantise";
    layers += step.text.contains(" int8");
  }
  EXPECT_GT(layers, 40);
  EXPECT_LE(quantised, 2) << "the image's and the pooled features'; the other grids are written by the layers before";
}

TEST(Int8, LogitsDoNotDependOnTheInstructionSet) {
  torch::NoGradGuard no_grad;
  auto model = rounded("resnet18", 32);
  auto engine = Engine::create(model).value();
  torch::manual_seed(3);
  const auto images = torch::randn({2, 3, 32, 32});
  const auto wanted = engine.logits(images);
  for (const auto target : kTargets) {
    if (!(hwy::SupportedTargets() & target)) continue;
    Forced forced(target);
    EXPECT_LE((engine.logits(images) - wanted).abs().max().item<double>(), 1e-4) << kernels::int8_target();
  }
}

}  // namespace
}  // namespace preceptor::deploy
