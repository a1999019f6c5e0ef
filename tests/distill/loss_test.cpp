#include "distill/loss.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

namespace preceptor::distill {
namespace {

using testing::HasSubstr;

SoftLoss loss_named(const std::string& name) { return (*soft_losses().find(name))->loss; }

/// With, as labels, the classes that the teacher thinks least of.
at::Tensor run(const SoftLoss& loss, const at::Tensor& student, const at::Tensor& teacher, double t) {
  return loss(student, teacher, teacher.argmin(1), {"", t});
}

double value(const SoftLoss& loss, const at::Tensor& student, const at::Tensor& teacher, double t) {
  return run(loss, student, teacher, t).item<double>();
}

at::Tensor gradient(const SoftLoss& loss, const at::Tensor& student, const at::Tensor& teacher,
                    double t) {
  const auto leaf = student.clone().requires_grad_();
  run(loss, leaf, teacher, t).backward();
  return leaf.grad();
}

TEST(SoftTarget, IsTheHandComputedValue) {
  // teacher / T = (ln 3, 0): p = (3/4, 1/4); student: q = (1/2, 1/2). T² · KL(p ‖ q).
  const double t = 2;
  const auto teacher = torch::tensor({{t * std::log(3.0), 0.0}}),
             student = torch::zeros({1, 2}, torch::kDouble);
  const double kl = 0.75 * std::log(0.75 / 0.5) + 0.25 * std::log(0.25 / 0.5);
  EXPECT_NEAR(value(loss_named("soft-target"), student, teacher, t), t * t * kl, 1e-6);
}

TEST(SoftTarget, HasTheGradientOfThePaperWhichDoesNotFadeWithTheTemperature) {
  torch::manual_seed(1);
  const auto student = torch::randn({6, 4}, torch::kDouble),
             teacher = torch::randn({6, 4}, torch::kDouble);
  for (const double t : {1.0, 4.0, 50.0}) {
    const auto q = torch::softmax(student / t, 1), p = torch::softmax(teacher / t, 1);
    EXPECT_TRUE(
        torch::allclose(gradient(loss_named("soft-target"), student, teacher, t), t * (q - p) / 6))
        << t;
  }
  const double warm =
      gradient(loss_named("soft-target"), student, teacher, 20).norm().item<double>();
  const double hot =
      gradient(loss_named("soft-target"), student, teacher, 200).norm().item<double>();
  EXPECT_NEAR(hot / warm, 1, 0.05) << "without T² it would be a tenth and less";
}

TEST(LogitStandardised, IgnoresScaleAndShiftOfEitherSidesLogits) {
  torch::manual_seed(2);
  const auto student = torch::randn({5, 4}, torch::kDouble),
             teacher = torch::randn({5, 4}, torch::kDouble);
  const auto scale = torch::rand({5, 1}, torch::kDouble) * 9 + 1,
             shift = torch::randn({5, 1}, torch::kDouble);
  const auto loss = loss_named("logit-standardised"), plain = loss_named("soft-target");
  const double base = value(loss, student, teacher, 2);
  EXPECT_GT(base, 0.01);
  EXPECT_NEAR(value(loss, student * scale + shift, teacher, 2), base, 1e-5);
  EXPECT_NEAR(value(loss, student, teacher * scale + shift, 2), base, 1e-5);
  EXPECT_GT(std::abs(value(plain, student * scale + shift, teacher, 2) -
                     value(plain, student, teacher, 2)),
            0.01);
}

TEST(LogitStandardised, IsRefusedForTwoClassesWithTheReason) {
  const DistillationOptions options{"logit-standardised", 2, 1, 1};
  const auto two = find_soft_loss(options, 2);
  ASSERT_FALSE(two);
  EXPECT_THAT(two.error().message, HasSubstr("needs 3 classes, not 2"));
  EXPECT_THAT(two.error().message, HasSubstr("no gradient is left; use soft-target"));
  EXPECT_TRUE(find_soft_loss(options, 3));
}

TEST(HardLabel, IsTheCrossEntropyAgainstTheTeachersChoice) {
  const auto student = torch::tensor({{1.0, 0.0, 0.0}, {0.0, 2.0, 0.0}}, torch::kDouble),
             teacher = torch::tensor({{0.1, 0.3, 0.2}, {5.0, 6.0, -1.0}}, torch::kDouble);
  const double first = std::log(std::exp(1.0) + 2), second = std::log(std::exp(2.0) + 2) - 2;
  for (const double t : {1.0, 10.0})
    EXPECT_NEAR(value(loss_named("hard-label"), student, teacher, t), (first + second) / 2, 1e-9);
}

/// One image's TCKD and NCKD from its probabilities, written out.
struct Split {
  double target = 0, others = 0;
};
Split split(const std::vector<double>& student, const std::vector<double>& teacher, std::size_t label) {
  const double qt = student[label], pt = teacher[label];
  Split sum{pt * std::log(pt / qt) + (1 - pt) * std::log((1 - pt) / (1 - qt)), 0};
  for (std::size_t i = 0; i < student.size(); ++i)
    if (i != label) sum.others += teacher[i] / (1 - pt) * std::log(teacher[i] / (1 - pt) * (1 - qt) / student[i]);
  return sum;
}
std::vector<double> probabilities(const at::Tensor& logits, double t) {
  std::vector<double> p;
  double sum = 0;
  for (std::int64_t i = 0; i < logits.size(0); ++i) p.push_back(std::exp(logits[i].item<double>() / t));
  for (const auto x : p) sum += x;
  for (auto& x : p) x /= sum;
  return p;
}

TEST(Dkd, IsTheFormulaOfThePaper) {
  torch::manual_seed(4);
  const auto student = torch::randn({5, 4}, torch::kDouble), teacher = 2 * torch::randn({5, 4}, torch::kDouble);
  const auto labels = torch::tensor({0, 3, 1, 1, 2}, torch::kInt64);
  for (const double t : {1.0, 4.0}) {
    double expected = 0;
    for (std::int64_t i = 0; i < 5; ++i) {
      const auto parts = split(probabilities(student[i], t), probabilities(teacher[i], t), std::size_t(labels[i].item<std::int64_t>()));
      expected += t * t * (0.7 * parts.target + 3 * parts.others) / 5;
    }
    EXPECT_NEAR(loss_named("dkd")(student, teacher, labels, {"dkd", t, 1, 1, 0.7, 3}).item<double>(), expected, 1e-9);
  }
}

TEST(Dkd, WithTheTeachersDoubtAsBetaIsHintonsLoss) {
  torch::manual_seed(4);
  const auto label = torch::tensor({2}, torch::kInt64);
  for (int i = 0; i < 5; ++i) {
    const auto student = torch::randn({1, 4}, torch::kDouble), teacher = torch::randn({1, 4}, torch::kDouble);
    const double doubt = 1 - probabilities(teacher[0], 2)[2];
    EXPECT_NEAR(loss_named("dkd")(student, teacher, label, {"dkd", 2, 1, 1, 1, doubt}).item<double>(),
                value(loss_named("soft-target"), student, teacher, 2), 1e-9);
  }
}

TEST(Dkd, OfTwoClassesIsAlphaTimesHintonsLossWhateverBetaIs) {
  torch::manual_seed(4);
  const auto student = torch::randn({6, 2}, torch::kDouble).requires_grad_(), teacher = torch::randn({6, 2}, torch::kDouble);
  const auto labels = torch::tensor({0, 1, 1, 0, 1, 0}, torch::kInt64);
  const auto hinton = gradient(loss_named("soft-target"), student.detach(), teacher, 4);
  for (const double beta : {0.0, 8.0, 1000.0}) {
    const auto loss = loss_named("dkd")(student, teacher, labels, {"dkd", 4, 1, 1, 0.5, beta});
    EXPECT_NEAR(loss.item<double>(), 0.5 * value(loss_named("soft-target"), student, teacher, 4), 1e-9);
    EXPECT_TRUE(torch::allclose(torch::autograd::grad({loss}, {student})[0], 0.5 * hinton)) << beta;
  }
}

TEST(Sigmoid, IsOneYesOrNoALabel) {
  const auto student = torch::tensor({{0.5, -1.0, 2.0}, {0.0, 3.0, -2.0}}, torch::kDouble),
             teacher = torch::tensor({{1.5, -2.0, -1.0}, {0.3, 3.5, 1.0}}, torch::kDouble);
  const auto sigma = [](double x) { return 1 / (1 + std::exp(-x)); };
  for (const double t : {1.0, 3.0}) {
    double expected = 0;
    for (int i = 0; i < 2; ++i)
      for (int c = 0; c < 3; ++c) {
        const double p = sigma(teacher[i][c].item<double>() / t), q = sigma(student[i][c].item<double>() / t);
        const double cross_entropy = -p * std::log(q) - (1 - p) * std::log(1 - q), entropy = -p * std::log(p) - (1 - p) * std::log(1 - p);
        expected += t * t * (cross_entropy - entropy) / 2;
      }
    EXPECT_NEAR(value(loss_named("sigmoid"), student, teacher, t), expected, 1e-9);
    const auto difference = torch::sigmoid(student / t) - torch::sigmoid(teacher / t);
    EXPECT_TRUE(torch::allclose(gradient(loss_named("sigmoid"), student, teacher, t), t * difference / 2));
  }
}

TEST(Sigmoid, LetsTwoLabelsBeTrueAtOnceWhereSoftmaxCannotTellThemFromNone) {
  const auto both = torch::full({1, 2}, 3.0), none = torch::full({1, 2}, -3.0);
  EXPECT_NEAR(value(loss_named("soft-target"), none, both, 1), 0, 1e-6);
  EXPECT_GT(value(loss_named("sigmoid"), none, both, 1), 1);
}

TEST(SoftLoss, AnUnknownNameIsAnsweredWithTheKnownOnes) {
  const auto found = find_soft_loss({"hard-target", 2, 1, 1}, 2);
  ASSERT_FALSE(found);
  EXPECT_THAT(found.error().message,
              HasSubstr("'hard-target'; known: dkd, hard-label, logit-standardised, sigmoid, soft-target"));
}

/// What every loss must hold, so that a new file is tested by being there.
class EverySoftLoss : public testing::TestWithParam<std::string> {
 protected:
  EverySoftLoss() {
    torch::manual_seed(3);
    student = torch::randn({8, classes()});
    teacher = torch::randn({8, classes()});
  }
  const SoftLossEntry& entry() const { return **soft_losses().find(GetParam()); }
  std::int64_t classes() const { return entry().min_classes + 1; }
  at::Tensor student, teacher;
};

TEST_P(EverySoftLoss, IsZeroForEqualLogitsAndPositiveForOthers) {
  // A hard label tells equal logits from others only where the teacher is sure.
  const auto sure = 1e4 * torch::one_hot(teacher.argmax(1), classes()).to(torch::kFloat);
  for (const auto& target : {sure, GetParam() == "hard-label" ? sure : teacher})
    for (const double t : {1.0, 4.0}) {
      EXPECT_NEAR(value(entry().loss, target, target, t), 0, 1e-6);
      EXPECT_GT(value(entry().loss, student, target, t), 1e-3);
      EXPECT_LT(gradient(entry().loss, target, target, t).abs().max().item<double>(), 1e-5);
    }
}

TEST_P(EverySoftLoss, IsAScalarThatIsTheMeanOverTheBatch) {
  const auto once = run(entry().loss, student, teacher, 2);
  EXPECT_EQ(once.dim(), 0);
  const auto twice =
      run(entry().loss, torch::cat({student, student}), torch::cat({teacher, teacher}), 2);
  EXPECT_NEAR(once.item<double>(), twice.item<double>(), 1e-5);
}

TEST_P(EverySoftLoss, TakesAPixelForAnImage) {
  const auto pixels = [](const at::Tensor& x) { return x.view({2, 2, 2, -1}).permute({0, 3, 1, 2}); };
  EXPECT_NEAR(value(entry().loss, pixels(student), pixels(teacher), 2), value(entry().loss, student, teacher, 2), 1e-5);
}

TEST_P(EverySoftLoss, PullsEveryImagesLogits) {
  EXPECT_TRUE((gradient(entry().loss, student, teacher, 2).abs().sum(1) > 0).all().item<bool>());
}

TEST_P(EverySoftLoss, FallsWhenTheStudentFollowsItsGradient) {
  auto at = student.clone();
  double before = value(entry().loss, at, teacher, 2);
  const double start = before;
  for (int step = 0; step < 30; ++step) {
    at = at - 0.3 * gradient(entry().loss, at, teacher, 2);
    const double now = value(entry().loss, at, teacher, 2);
    EXPECT_LT(now, before);
    before = now;
  }
  EXPECT_LT(before, 0.9 * start);
}

TEST_P(EverySoftLoss, StaysFiniteForExtremeAndForConstantLogits) {
  for (const auto& odd :
       {torch::zeros({8, classes()}), torch::full({8, classes()}, 30.0f), 1000 * student}) {
    EXPECT_TRUE(std::isfinite(value(entry().loss, odd, teacher, 2)));
    EXPECT_TRUE(torch::isfinite(gradient(entry().loss, odd, teacher, 2)).all().item<bool>());
    EXPECT_TRUE(std::isfinite(value(entry().loss, student, odd, 2)));
    EXPECT_TRUE(torch::isfinite(gradient(entry().loss, student, odd, 2)).all().item<bool>());
  }
}

TEST_P(EverySoftLoss, KeepsItsGradientWhenTheTemperatureRises) {
  const double warm = gradient(entry().loss, student, teacher, 10).norm().item<double>();
  const double hot = gradient(entry().loss, student, teacher, 100).norm().item<double>();
  EXPECT_GT(hot, 0.5 * warm);
  EXPECT_LT(hot, 2 * warm);
}

TEST_P(EverySoftLoss, IsFoundForItsFewestClassesAndNotBelow) {
  const DistillationOptions options{GetParam(), 2, 1, 1};
  EXPECT_TRUE(find_soft_loss(options, entry().min_classes));
  const auto below = find_soft_loss(options, entry().min_classes - 1);
  if (entry().min_classes > 2) {
    ASSERT_FALSE(below);
    EXPECT_THAT(below.error().message, HasSubstr(entry().why));
    EXPECT_FALSE(entry().why.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, EverySoftLoss, testing::ValuesIn(soft_losses().names()),
                         [](const auto& param) {
                           auto name = param.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace preceptor::distill
