#include "distill/feature_loss.h"

#include <gmock/gmock.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <cmath>

#include "distill/distill.h"
#include "tests/support/temp_dir.h"
#include "tests/training/made.h"

namespace preceptor::distill {
namespace {

using models::Features;
using testing::HasSubstr;
using training::test::made_model;
using training::test::noise;

std::unique_ptr<FeatureLoss> make(const std::string& name, std::uint64_t seed = 1) {
  training::TrainingOptions options;
  options.weight_decay = 0;
  return (*feature_losses().find(name))->make(options, seed);
}

double value(const std::string& name, const Features& student, const Features& teacher) {
  return make(name)->loss(student, teacher).item<double>();
}

TEST(PairedMaps, AreTheLastStagesOfBothAtTheSmallerSize) {
  const Features student{{torch::rand({2, 3, 8, 8}), torch::rand({2, 4, 4, 4})}, {}},
      teacher{{torch::rand({2, 9, 8, 8}), torch::rand({2, 5, 4, 4}), torch::rand({2, 6, 7, 7})}, {}};
  const auto pairs = paired_maps(student, teacher);
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_TRUE(torch::equal(pairs[0].student, torch::avg_pool2d(student.maps[0], 2)));
  EXPECT_TRUE(pairs[0].teacher.is_same(teacher.maps[1]));
  EXPECT_TRUE(pairs[1].student.is_same(student.maps[1]));
  EXPECT_EQ(pairs[1].teacher.sizes(), (at::IntArrayRef{2, 6, 4, 4}));
}

TEST(AttentionTransfer, IsTheDistanceOfWhereBothLook) {
  // One image of two pixels. Student: two channels, energies (1 + 9) / 2 = 5 and 0; teacher: one, energies 9 and 16.
  const Features student{{torch::tensor({1.0, 0.0, 3.0, 0.0}, torch::kDouble).view({1, 2, 1, 2})}, {}},
      teacher{{torch::tensor({3.0, -4.0}, torch::kDouble).view({1, 1, 1, 2})}, {}};
  const double length = std::sqrt(81.0 + 256.0);
  const double expected = 1000 * (std::pow(1 - 9 / length, 2) + std::pow(16 / length, 2)) / 2;
  EXPECT_NEAR(value("at", student, teacher), expected, 1e-9);
  const Features stages{{student.maps[0], student.maps[0]}, {}}, hints{{teacher.maps[0], teacher.maps[0]}, {}};
  EXPECT_NEAR(value("at", stages, hints), 2 * expected, 1e-9) << "the sum over stages";
}

TEST(AttentionTransfer, DoesNotSeeHowLargeFeaturesAreNorThatAllOfThemAreZero) {
  const Features some{{torch::rand({2, 3, 4, 4})}, {}}, larger{{5 * some.maps[0]}, {}};
  EXPECT_NEAR(value("at", some, larger), 0, 1e-6);
  auto dead = torch::zeros({2, 3, 4, 4}).requires_grad_();
  const auto loss = make("at")->loss({{dead}, {}}, some);
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_TRUE(dead.grad().isfinite().all().item<bool>());
}

/// |x| < 1: x² / 2, else |x| − 1 / 2.
double smooth_l1(double x) { return std::abs(x) < 1 ? x * x / 2 : std::abs(x) - 0.5; }

TEST(Rkd, IsTheDistancesAndAnglesOfThePaper) {
  const std::vector<std::array<double, 2>> s{{0, 0}, {3, 4}, {6, 0}, {1, 1}}, t{{1, 0}, {0, 2}, {0, 0}, {5, 5}};
  const int n = 4;
  const auto apart = [](const auto& e, int i, int j) { return std::hypot(e[j][0] - e[i][0], e[j][1] - e[i][1]); };
  const auto mean = [&](const auto& e) {
    double sum = 0;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < n; ++j) sum += apart(e, i, j);
    return sum / (n * (n - 1));
  };
  const auto cosine = [&](const auto& e, int i, int j, int k) {
    if (i == j || i == k) return 0.0;
    return ((e[j][0] - e[i][0]) * (e[k][0] - e[i][0]) + (e[j][1] - e[i][1]) * (e[k][1] - e[i][1])) / (apart(e, i, j) * apart(e, i, k));
  };
  double distance = 0, angle = 0;
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) {
      distance += smooth_l1(apart(s, i, j) / mean(s) - apart(t, i, j) / mean(t)) / (n * n);
      for (int k = 0; k < n; ++k) angle += smooth_l1(cosine(s, i, j, k) - cosine(t, i, j, k)) / (n * n * n);
    }
  const auto embedding = [&](const auto& e) {
    auto rows = torch::zeros({n, 2}, torch::kDouble);
    for (int i = 0; i < n; ++i) rows[i][0] = e[std::size_t(i)][0], rows[i][1] = e[std::size_t(i)][1];
    return Features{{}, rows};
  };
  EXPECT_NEAR(value("rkd", embedding(s), embedding(t)), 25 * distance + 50 * angle, 1e-9);
}

TEST(Rkd, KnowsNeitherScaleNorRotationNorSizeOfAnEmbedding) {
  torch::manual_seed(1);
  const auto e = torch::randn({6, 3}, torch::kDouble);
  const auto turned = std::get<0>(torch::linalg_qr(torch::randn({3, 3}, torch::kDouble)));
  const auto wide = torch::cat({7 * e.mm(turned), torch::ones({6, 2}, torch::kDouble)}, 1);
  EXPECT_NEAR(value("rkd", {{}, e}, {{}, wide}), 0, 1e-12);
  EXPECT_GT(value("rkd", {{}, e}, {{}, torch::randn({6, 3}, torch::kDouble)}), 0.1);
}

TEST(Rkd, StaysFiniteWhereEmbeddingsAreEqual) {
  auto same = torch::ones({4, 3}).requires_grad_();
  const auto loss = make("rkd")->loss({{}, same}, {{}, torch::randn({4, 3})});
  loss.backward();
  EXPECT_TRUE(std::isfinite(loss.item<double>()));
  EXPECT_TRUE(same.grad().isfinite().all().item<bool>());
}

TEST(FitNet, IsAHundredTimesTheMeanSquareOfTheMiddleStageAlone) {
  const auto nothing = torch::zeros({2, 3, 4, 4}), hint = torch::rand({2, 5, 4, 4}), other = torch::rand({2, 5, 4, 4});
  // Whatever the regressor, it makes nothing of nothing.
  EXPECT_NEAR(value("fitnet", {{nothing, nothing, nothing}, {}}, {{other, hint, other}, {}}),
              100 * hint.square().mean().item<double>(), 1e-4);
}

TEST(FitNet, ItsRegressorLearnsTheWayFromStudentToTeacher) {
  torch::manual_seed(1);
  const auto student = torch::randn({8, 3, 4, 4}), way = torch::randn({5, 3, 1, 1});
  const Features from{{student}, {}}, to{{torch::conv2d(student, way)}, {}};
  const auto loss = make("fitnet");
  double first = 0, last = 0;
  for (int step = 0; step < 200; ++step) {
    const auto now = loss->loss(from, to);
    now.backward();
    loss->step(0.001);
    last = now.item<double>();
    if (step == 0) first = last;
  }
  EXPECT_GT(first, 10);
  EXPECT_LT(last, 1e-3 * first);
}

TEST(FitNet, ItsRegressorBeginsTheSameForTheSameSeed) {
  const Features student{{torch::rand({2, 3, 4, 4})}, {}}, teacher{{torch::rand({2, 5, 4, 4})}, {}};
  const auto first = [&](std::uint64_t seed) { return make("fitnet", seed)->loss(student, teacher).item<double>(); };
  EXPECT_EQ(first(1), first(1));
  EXPECT_NE(first(1), first(2));
}

/// What every feature loss must hold, so that a new file is tested by being there.
class EveryFeatureLoss : public testing::TestWithParam<std::string> {
 protected:
  EveryFeatureLoss() {
    torch::manual_seed(3);
    options.loss = "soft-target";
    options.hard_weight = options.soft_weight = 0;
    options.features = GetParam();
    training.optimizer = "adamw";
    training.learning_rate = 0.003;
    training.batch = 8;
  }
  DistillationOptions options;
  training::TrainingOptions training;
  data::Dataset set = noise(32);
  std::shared_ptr<models::FlatModel> model = std::make_shared<models::FlatModel>(made_model("mobilenet_v3_small", 2, 4));
};

TEST_P(EveryFeatureLoss, TakesNetworksWithOtherStagesChannelsAndSizes) {
  const auto map = [](int channels, int size) { return torch::rand({4, channels, size, size}); };
  auto leaf = map(5, 6).requires_grad_(), embedding = torch::rand({4, 8}).requires_grad_();
  const Features student{{map(3, 12), leaf}, embedding}, teacher{{map(4, 16), map(7, 7), map(9, 5)}, torch::rand({4, 3})};
  const auto loss = make(GetParam())->loss(student, teacher);
  EXPECT_EQ(loss.dim(), 0);
  EXPECT_GT(loss.item<double>(), 0);
  loss.backward();
  EXPECT_TRUE((leaf.grad().defined() && leaf.grad().abs().max().item<double>() > 0) ||
              (embedding.grad().defined() && embedding.grad().abs().max().item<double>() > 0));
}

TEST_P(EveryFeatureLoss, IsZeroWhereStudentAndTeacherAreOneUnlessARegressorStandsBetween) {
  const Features both{{torch::rand({4, 3, 8, 8}), torch::rand({4, 5, 4, 4})}, torch::rand({4, 6})};
  if ((*feature_losses().find(GetParam()))->learns)
    EXPECT_GT(value(GetParam(), both, both), 0);
  else
    EXPECT_NEAR(value(GetParam(), both, both), 0, 1e-9);
}

TEST_P(EveryFeatureLoss, FallsWhileAStudentIsTrainedAndLeavesTheTeacherAlone) {
  const auto before = model->store();
  model->gradients().zero_();
  training.epochs = 6;
  double first = 0, last = 0;
  auto student = made_model("shufflenet_v2");
  const auto done = derive(student, Teacher::wrap(model), set, training, options, 1, [&](int epoch, double loss) {
    (epoch == 0 ? first : last) = loss;
    return true;
  });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_GT(first, 0);
  EXPECT_LT(last, 0.9 * first);
  EXPECT_EQ(model->store(), before);
  EXPECT_EQ(model->gradients().abs().max().item<double>(), 0);
}

TEST_P(EveryFeatureLoss, GivesTheSameStudentForTheSameSeed) {
  const auto hash = [&](std::uint64_t seed) {
    auto student = made_model("shufflenet_v2");
    EXPECT_TRUE(derive(student, Teacher::wrap(model), set, training, options, seed));
    return model_hash(student.store());
  };
  EXPECT_EQ(hash(1), hash(1));
  EXPECT_NE(hash(1), hash(2));
}

TEST_P(EveryFeatureLoss, EntersTheObjectiveWithItsWeightBesideTheOthers) {
  const std::vector<std::size_t> index{1, 4, 6, 7};
  const auto batch = training::make_batch(set, index, training.augment, 5, 0);
  auto student = made_model("shufflenet_v2");
  const auto teacher = Teacher::wrap(model);
  options.hard_weight = 0.3, options.soft_weight = 2, options.feature_weight = 0.25;
  const auto [logits, features] = models::with_features([&] { return student.forward(batch.images); });
  const auto hints = models::with_features([&] { return teacher.logits(batch.images); }).second;
  const auto objective = make_objective(options, teacher, set, training, 5).value();
  const double plain = objective->loss(batch, logits).item<double>();
  const double hinted = make(GetParam(), 5)->loss(features, hints).item<double>();
  EXPECT_NEAR(objective->loss_with(batch, logits, features).item<double>(), plain + 0.25 * hinted, 1e-4 * hinted);
}

TEST_P(EveryFeatureLoss, RefusesATeacherThatShowsNoFeatures) {
  test::TempDir dir;
  torch::jit::Module module("network");
  module.register_parameter("weight", torch::rand({784, 2}), false);
  module.define("def forward(self, x):\n    return torch.matmul(x.flatten(1), self.weight)\n");
  module.save((dir / "t.pt").string());
  const auto made = make_objective(options, Teacher::load(dir / "t.pt", {2, 1, 28}, "cpu").value(), set, training, 1);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::kInvalid);
  EXPECT_THAT(made.error().message, HasSubstr("a TorchScript teacher shows no features; take a teacher of the zoo"));
}

TEST_P(EveryFeatureLoss, IsForASitesRoundOnlyIfItLearnsNothingOfItsOwn) {
  EXPECT_TRUE(check(options, 2));
  EXPECT_EQ(check(options, 2, /*in_rounds=*/true).has_value(), !(*feature_losses().find(GetParam()))->learns);
}

INSTANTIATE_TEST_SUITE_P(Registered, EveryFeatureLoss, testing::ValuesIn(feature_losses().names()),
                         [](const auto& param) { return param.param; });

TEST(FeatureLoss, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  DistillationOptions options;
  options.features = "crd";
  const auto checked = check(options, 2);
  ASSERT_FALSE(checked);
  EXPECT_THAT(checked.error().message, HasSubstr("unknown feature loss 'crd'; known: at, fitnet, rkd"));
}

TEST(FeatureLoss, PullsASegmentersFeaturesAsWell) {
  // All taps are maps; the embedding is that of the coarsest.
  const auto unet = [](std::uint64_t seed) {
    auto model = models::FlatModel::create({{"unet", 0.25, "standard"}, {2, 1, 28}}).value();
    model.initialise(RandomStream(seed, "init"));
    return model;
  };
  auto student = unet(1), teacher = unet(2);
  const auto images = torch::randn({3, 1, 28, 28});
  const auto of = [&](models::FlatModel& model) { return models::with_features([&] { return model.forward(images); }).second; };
  for (const auto& name : feature_losses().names()) EXPECT_GT(value(name, of(student), of(teacher)), 0) << name;
}

}  // namespace
}  // namespace preceptor::distill
