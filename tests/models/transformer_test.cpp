#include <gmock/gmock.h>
#include <torch/torch.h>

#include "models/flat_model.h"

namespace preceptor::models {
namespace {

using testing::HasSubstr;

FlatModel make(const ModelOptions& model, const TaskOptions& task) {
  auto made = FlatModel::create({model, task});
  EXPECT_TRUE(made) << made.error().message;
  made->initialise(RandomStream(1, "init"));
  return std::move(*made);
}

at::Tensor images(int count, const TaskOptions& task) {
  torch::manual_seed(2);
  return torch::randn({count, task.channels, task.image_size, task.image_size});
}

at::Tensor evaluated(FlatModel& model, const at::Tensor& batch) {
  torch::NoGradGuard no_grad;
  model.network().eval();
  return model.forward(batch);
}

class Transformers : public testing::TestWithParam<ModelOptions> {
 protected:
  template <class F>
  void everywhere(F f) const {
    for (const auto& [stem, size] : {std::pair("small", 28), std::pair("half", 64)})
      for (const int channels : {1, 3}) {
        SCOPED_TRACE(fmt::format("{} {}, {} channels", GetParam().name, stem, channels));
        auto options = GetParam();
        options.stem = stem;
        f(options, TaskOptions{3, channels, size});
      }
  }
};

TEST_P(Transformers, SendAGradientToEveryParameter) {
  everywhere([](const ModelOptions& options, const TaskOptions& task) {
    auto model = make(options, task);
    model.network().train();
    model.forward(images(4, task)).square().sum().backward();
    ASSERT_TRUE(model.gradients().isfinite().all().item<bool>());
    for (const auto& piece : model.space().pieces()) {
      const auto part = model.gradients().narrow(0, std::int64_t(piece.offset), std::int64_t(piece.size));
      EXPECT_EQ(part.abs().max().item<double>() > 0, !is_statistic(piece.role)) << piece.name;
    }
  });
}

TEST_P(Transformers, LookAtEachImageAloneInEvaluationMode) {
  everywhere([](const ModelOptions& options, const TaskOptions& task) {
    auto model = make(options, task);
    const auto batch = images(5, task);
    const auto all = evaluated(model, batch);
    EXPECT_EQ(all.sizes(), (at::IntArrayRef{5, task.classes}));
    EXPECT_GT((all[0] - all[1]).abs().max().item<double>(), 1e-5) << "images make a difference";
    for (int i = 0; i < 5; ++i)
      EXPECT_TRUE(torch::allclose(all.narrow(0, i, 1), evaluated(model, batch.narrow(0, i, 1)), 1e-4, 1e-5)) << i;
  });
}

/// Catches a view that is right in one memory format only.
TEST_P(Transformers, DoNotDependOnTheMemoryFormat) {
  everywhere([](const ModelOptions& options, const TaskOptions& task) {
    auto model = make(options, task);
    model.network().eval();
    const auto batch = images(2, task);
    model.forward(batch).square().sum().backward();
    const auto last = model.gradients().clone(), logits = evaluated(model, batch);
    model.gradients().zero_();
    const auto first = model.network().forward(batch);
    EXPECT_TRUE(torch::allclose(first, logits, 1e-3, 1e-5));
    first.square().sum().backward();
    EXPECT_LT((model.gradients() - last).norm().item<double>(), 1e-3 * last.norm().item<double>());
  });
}

INSTANTIATE_TEST_SUITE_P(Zoo, Transformers,
                         testing::Values(ModelOptions{"efficientvit_b0"}, ModelOptions{"mobilevit_v2", 0.5},
                                         ModelOptions{"deit_tiny"}),
                         [](const auto& param) { return param.param.name; });

TEST(DeitTiny, HasTwoHeadsInTrainingAndTheirMeanInEvaluation) {
  const TaskOptions task{3, 1, 28};
  auto model = make({"deit_tiny"}, task);  // distilled is the default
  const auto batch = images(2, task);
  model.network().train();
  const auto heads = model.forward(batch).detach();
  ASSERT_EQ(heads.sizes(), (at::IntArrayRef{2, 2, 3}));
  EXPECT_GT((heads.select(1, 0) - heads.select(1, 1)).abs().max().item<double>(), 1e-4);
  EXPECT_TRUE(torch::allclose(evaluated(model, batch), heads.mean(1), 1e-4, 1e-6));
}

TEST(DeitTiny, RefusesImagesThatItsPatchesDoNotDivide) {
  const auto made = FlatModel::create({{"deit_tiny", 1, "standard"}, {3, 1, 28}});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kInvalid);
  EXPECT_THAT(made.error().message, HasSubstr("patches of 16 px, into which 28 px"));
}

TEST(Transformer, RefusesWidthsAndVariantsThatItDoesNotHave) {
  for (const std::string name : {"efficientvit_b0", "mobilevit_v2", "deit_tiny"}) {
    for (const auto& options : {ModelOptions{name, 0.3}, ModelOptions{name, 1, "small", "huge"}}) {
      const auto made = FlatModel::create({options, {3, 1, 28}});
      ASSERT_FALSE(made);
      EXPECT_EQ(made.error().code, Code::kInvalid);
      EXPECT_THAT(made.error().message, HasSubstr(name));
    }
  }
}

TEST(MobileVitV2, TakesMapsOfOddSize) {
  for (const int size : {20, 28, 36, 52}) {  // maps of 5, 7, 9, 13 pixels on the way
    const TaskOptions task{3, 1, size};
    auto model = make({"mobilevit_v2", 0.5}, task);
    EXPECT_TRUE(evaluated(model, images(2, task)).isfinite().all().item<bool>()) << size;
  }
}

}  // namespace
}  // namespace preceptor::models
