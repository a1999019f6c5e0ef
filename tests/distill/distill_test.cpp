#include "distill/distill.h"

#include <gmock/gmock.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <fstream>

#include "tests/support/temp_dir.h"
#include "tests/training/made_masks.h"

namespace preceptor::distill {
namespace {

using preceptor::test::TempDir;
using testing::HasSubstr;
using training::test::made_model;
using training::test::noise;
using training::test::phantoms;

/// A small network that counts the images it is shown.
class Counting : public training::test::Tiny {
 public:
  using Tiny::Tiny;
  torch::Tensor forward(torch::Tensor images) override {
    shown += images.size(0);
    return Tiny::forward(images);
  }
  static inline std::int64_t shown = 0;
};
const models::RegisterModel kCounting{
    "test-counting",
    {"CNN", "classification", "",
     [](const models::ModelSpec& spec) -> Result<std::shared_ptr<models::Model>> {
       return std::make_shared<Counting>(spec.task);
     }}};

std::shared_ptr<models::FlatModel> shared(models::FlatModel model) {
  return std::make_shared<models::FlatModel>(std::move(model));
}

training::TrainingOptions quick(int epochs) {
  training::TrainingOptions options;
  options.optimizer = "adamw";
  options.learning_rate = 0.01;
  options.epochs = epochs;
  options.augment.shift = 2;
  return options;
}

/// Mean KL from the teacher's to the student's probabilities, in nats.
double distance(const Teacher& teacher, models::FlatModel& student, const data::Dataset& set) {
  torch::NoGradGuard no_grad;
  student.network().eval();
  const auto of = [&](const auto& network) {
    return torch::log_softmax(training::logits_of(network, set, {}, 0, -1), 1);
  };
  const auto p = of([&](const at::Tensor&x) { return teacher.logits(x); }),
             q = of([&](const at::Tensor&x) { return student.forward(x); });
  return (p.exp() * (p - q)).sum(1).mean().item<double>();
}

TEST(Teacher, LooksWithoutLearning) {
  const auto model = shared(made_model());
  const auto before = model->store();
  model->network().train();
  const auto teacher = Teacher::wrap(model);
  const auto images = torch::randn({4, 1, 28, 28});
  const auto logits = teacher.logits(images);
  EXPECT_FALSE(logits.requires_grad());
  EXPECT_EQ(model->store(), before) << "evaluation mode: running statistics stay";
  EXPECT_TRUE(
      torch::allclose(teacher.logits(images.narrow(0, 0, 1)), logits.narrow(0, 0, 1), 1e-4, 1e-6))
      << "no batch statistics";
  EXPECT_EQ(teacher.model(), model.get());
}

TEST(LogitCache, GivesWhatTheTeacherWouldSayAndAsksItOnceAView) {
  const auto set = noise(20);
  const auto model = shared(made_model("test-counting"));
  const auto teacher = Teacher::wrap(model);
  training::AugmentOptions augment;
  augment.rotate = 20;
  LogitCache cache(teacher, set, augment, 5);
  Counting::shown = 0;
  const std::vector<std::vector<std::size_t>> batches{{3, 17, 4}, {0, 1}, {19, 3}};
  for (const int view : {0, 2})
    for (const auto& index : batches) {
      const auto batch = training::make_batch(set, index, augment, 5, view);
      const auto shown = Counting::shown;
      const auto cached = cache.rows(batch);
      const auto expected_new = &index == &batches[0] ? 20 : 0;
      EXPECT_EQ(Counting::shown - shown, expected_new) << "view " << view;
      EXPECT_TRUE(torch::allclose(cached, teacher.logits(batch.images), 1e-4, 1e-6))
          << "view " << view;
    }
  EXPECT_EQ(cache.computed(), 2u);
}

TEST(LogitCache, KeepsTheMapsOfASegmentationSet) {
  const auto set = training::test::blocks(6);
  const auto teacher = Teacher::wrap(shared(made_model("test-pixelwise", 2, 1, 1, 16)));
  const auto training = quick(1);
  LogitCache cache(teacher, set, training.augment, 5);
  const std::vector<std::size_t> index{4, 0};
  for (const int view : {0, 1}) {
    const auto batch = training::make_batch(set, index, training.augment, 5, view);
    const auto rows = cache.rows(batch);
    ASSERT_EQ(rows.sizes(), (std::vector<std::int64_t>{2, 2, 16, 16}));
    EXPECT_TRUE(torch::allclose(rows, teacher.logits(batch.images), 1e-4, 1e-5));
  }
  EXPECT_EQ(cache.computed(), 2u);
}

TEST(LogitCache, KeepsNoViewThatWouldBeTooLargeAndAsksBatchByBatch) {
  data::Dataset set{512, 512, 1, {}, {}, {0, 0, 0}, {}, true};
  set.classes.resize(256);  // 3 images × 256 classes × 512² pixels × 4 bytes: 768 MiB
  set.pixels.resize(3 * set.image_bytes(), 70);
  set.masks.resize(3 * set.mask_bytes());
  const auto teacher = Teacher::wrap(shared(made_model("test-pixelwise", 2, 1, 1, 512)));
  LogitCache cache(teacher, set, {}, 5);
  const std::vector<std::size_t> index{2, 1};
  const auto batch = training::make_batch(set, index);
  EXPECT_TRUE(torch::equal(cache.rows(batch), teacher.logits(batch.images)));
  EXPECT_EQ(cache.computed(), 0u);
}

TEST(Teacher, ForTheOtherTaskIsRefused) {
  TempDir dir;
  const auto path = dir / "t.safetensors";
  const models::TaskOptions task{2, 1, 28};
  ASSERT_TRUE(models::save_model(path, made_model("test-pixelwise")));
  EXPECT_TRUE(Teacher::load(path, task, "cpu", true));
  const auto segmenter = Teacher::load(path, task, "cpu", false);
  ASSERT_FALSE(segmenter);
  EXPECT_THAT(segmenter.error().message, HasSubstr("a network for segmentation, which the data are not for"));
  ASSERT_TRUE(models::save_model(path, made_model()));
  EXPECT_TRUE(Teacher::load(path, task, "cpu", false));
  EXPECT_FALSE(Teacher::load(path, task, "cpu", true));
}

TEST(Derive, OfASegmenterComesNearItsTeacher) {
  const auto set = training::test::blocks(32);
  auto training = quick(6);
  training.learning_rate = 0.1;
  training.batch = 8;
  const auto supervised = training::make_supervised(training, set);
  auto good = made_model("test-pixelwise", 2, 1, 1, 16);
  ASSERT_TRUE(training::train(good, set, training, *supervised, 1));
  const auto teacher = Teacher::wrap(shared(std::move(good)));
  auto student = made_model("test-pixelwise", 2, 9, 1, 16);
  const double before = distance(teacher, student, set);
  const auto done = derive(student, teacher, set, training, {"soft-target", 2, 0, 1}, 2);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_LT(distance(teacher, student, set), 0.3 * before) << "by the soft loss alone";
}

TEST(Objective, IsTheWeightedSumOfHardAndSoftLoss) {
  const auto set = noise(10);
  const auto teacher = Teacher::wrap(shared(made_model()));
  const auto training = quick(1);
  const std::vector<std::size_t> index{1, 4, 6};
  const auto batch = training::make_batch(set, index, training.augment, 5, 1);
  const auto logits = torch::randn({3, 2});
  const auto with = [&](double hard, double soft) {
    auto objective =
        make_objective({"soft-target", 3, hard, soft}, teacher, set, training, 5).value();
    return objective->loss(batch, logits).item<double>();
  };
  const double hard =
      training::make_cross_entropy(training, set)->loss(batch, logits).item<double>();
  const double soft = (*soft_losses().find("soft-target"))
                          ->loss(logits, teacher.logits(batch.images), batch.labels, {"soft-target", 3})
                          .item<double>();
  EXPECT_NEAR(with(1, 0), hard, 1e-5);
  EXPECT_NEAR(with(0, 1), soft, 1e-5);
  EXPECT_NEAR(with(0.3, 2), 0.3 * hard + 2 * soft, 1e-5);
}

TEST(Objective, OfTwoHeadsShowsTheLabelsToOneAndTheTeacherToTheOther) {
  const auto set = noise(10);
  const auto teacher = Teacher::wrap(shared(made_model()));
  const auto training = quick(1);
  const std::vector<std::size_t> index{1, 4, 6};
  const auto batch = training::make_batch(set, index, training.augment, 5, 1);
  torch::manual_seed(1);
  const auto label_head = torch::randn({3, 2}), teacher_head = torch::randn({3, 2});
  const auto hard = training::make_cross_entropy(training, set)->loss(batch, label_head);
  for (const std::string name : {"soft-target", "hard-label"}) {
    const auto soft = (*soft_losses().find(name))->loss(teacher_head, teacher.logits(batch.images), batch.labels, {name, 3});
    auto objective = make_objective({name, 3, 0.3, 2}, teacher, set, training, 5).value();
    const auto both = objective->loss(batch, torch::stack({label_head, teacher_head}, 1));
    EXPECT_NEAR(both.item<double>(), 0.3 * hard.item<double>() + 2 * soft.item<double>(), 1e-5) << name;
  }
}

TEST(Objective, RefusesALossThatSaysNothingForTheDataSetsClasses) {
  const auto set = noise(4);
  const auto made = make_objective({"logit-standardised", 2, 1, 1},
                                   Teacher::wrap(shared(made_model())), set, quick(1), 1);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("needs 3 classes"));
}

class DeriveTest : public testing::Test {
 protected:
  DeriveTest() {
    const auto options = quick(25);
    const auto objective = training::make_cross_entropy(options, set);
    EXPECT_TRUE(training::train(*model, set, options, *objective, 1));
  }
  data::Dataset set = phantoms(200);
  std::shared_ptr<models::FlatModel> model = shared(made_model("test-counting"));
  Teacher teacher = Teacher::wrap(model);
};

TEST_F(DeriveTest, ADistilledStudentComesCloserToItsTeacherWithoutAnyLabel) {
  auto unlabelled = set;
  std::ranges::fill(unlabelled.labels, 0);  // no help from the labels, which carry no weight anyway
  auto student = made_model("test-tiny", 2, /*seed=*/2);
  const double before = distance(teacher, student, set);
  const auto done = derive(student, teacher, unlabelled, quick(10), {"soft-target", 2, 0, 1}, 1);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_GT(before, 0.05);
  EXPECT_LT(distance(teacher, student, set), 0.4 * before);
}

TEST_F(DeriveTest, TheTeacherSeesEachViewOnceHoweverManyEpochsThereAre) {
  auto student = made_model("test-tiny", 2, 2);
  for (const auto& [asked, expected] : std::vector<std::pair<int, int>>{{3, 3}, {0, 4}}) {
    auto options = quick(7);
    options.views = asked;
    Counting::shown = 0;
    ASSERT_TRUE(derive(student, teacher, set, options, {}, 1));
    EXPECT_EQ(Counting::shown, expected * std::int64_t(set.size())) << asked;
  }
}

TEST_F(DeriveTest, IsTheSameForTheSameSeed) {
  const auto hash = [&](std::uint64_t seed) {
    auto student = made_model("test-tiny", 2, 2);
    EXPECT_TRUE(derive(student, teacher, set, quick(2), {}, seed));
    return model_hash(student.store());
  };
  EXPECT_EQ(hash(1), hash(1));
  EXPECT_NE(hash(1), hash(2));
}

/// Teachers that come from a file.
class TeacherFileTest : public testing::Test {
 protected:
  /// A TorchScript file whose network gives `classes` logits of a 28 px image.
  std::filesystem::path script(const std::string& name, int classes) {
    torch::jit::Module module("network");
    module.register_parameter(
        "weight", torch::arange(784 * classes, torch::kFloat).view({784, classes}) * 1e-3, false);
    module.define("def forward(self, x):\n    return torch.matmul(x.flatten(1), self.weight)\n");
    module.save((dir / name).string());
    return dir / name;
  }
  static std::string why(const Result<Teacher>& teacher) {
    return teacher ? "loaded" : teacher.error().message;
  }

  TempDir dir;
  const models::TaskOptions two{2, 1, 28};
};

TEST_F(TeacherFileTest, TorchScriptGivesItsOwnLogits) {
  for (const std::string name : {"a.pt", "a.ts"}) {
    const auto teacher = Teacher::load(script(name, 2), two, "cpu");
    ASSERT_TRUE(teacher) << teacher.error().message;
    const auto images = torch::randn({3, 1, 28, 28});
    const auto expected =
        images.flatten(1).mm(torch::arange(784 * 2, torch::kFloat).view({784, 2}) * 1e-3);
    EXPECT_TRUE(torch::allclose(teacher->logits(images), expected));
    EXPECT_EQ(teacher->model(), nullptr);
  }
}

TEST_F(TeacherFileTest, TorchScriptForAnotherTaskIsRefused) {
  EXPECT_THAT(why(Teacher::load(script("a.pt", 3), two, "cpu")),
              HasSubstr("gives logits [1, 3] where [1, 2] are wanted"));
  EXPECT_THAT(why(Teacher::load(script("b.pt", 2), {2, 1, 32}, "cpu")),
              HasSubstr("b.pt: not a usable TorchScript file"));
}

TEST_F(TeacherFileTest, GarbageOrNoFileIsAnErrorThatNamesTheFileInOneLine) {
  std::ofstream(dir / "garbage.pt") << "this is no archive";
  for (const std::string name : {"garbage.pt", "missing.pt", "missing.safetensors"}) {
    const auto message = why(Teacher::load(dir / name, two, "cpu"));
    EXPECT_THAT(message, HasSubstr(name));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_THAT(why(Teacher::load(dir / "garbage.pt", two, "cpu")),
              HasSubstr("not a usable TorchScript file"));
}

TEST_F(TeacherFileTest, AModelOfTheZooGivesItsOwnLogits) {
  auto model = made_model("shufflenet_v2");
  ASSERT_TRUE(models::save_model(dir / "m.safetensors", model));
  const auto teacher = Teacher::load(dir / "m.safetensors", two, "cpu");
  ASSERT_TRUE(teacher) << teacher.error().message;
  model.network().eval();
  const auto images = torch::randn({3, 1, 28, 28});
  EXPECT_TRUE(torch::equal(teacher->logits(images), model.forward(images).detach()));
  EXPECT_NE(teacher->model(), nullptr);
}

TEST_F(TeacherFileTest, AModelOfTheZooForAnotherTaskIsRefused) {
  ASSERT_TRUE(models::save_model(dir / "m.safetensors", made_model("shufflenet_v2")));
  EXPECT_THAT(why(Teacher::load(dir / "m.safetensors", {3, 1, 28}, "cpu")),
              HasSubstr("made for 2 classes and 1 channels, the data have 3 and 1"));
  EXPECT_THAT(why(Teacher::load(dir / "m.safetensors", {2, 3, 28}, "cpu")),
              HasSubstr("the data have 2 and 3"));
}

}  // namespace
}  // namespace preceptor::distill
