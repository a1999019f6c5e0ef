#include "training/training.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <set>
#include <thread>

#include "tests/training/made.h"
#include "training/outcome.h"

namespace preceptor::training {
namespace {

using test::made_model;
using test::noise;
using test::phantoms;
using testing::ElementsAre;
using testing::HasSubstr;

TrainingOptions quick(int epochs = 2, int batch = 16) {
  TrainingOptions options;
  options.epochs = epochs;
  options.batch = batch;
  options.learning_rate = 0.02;
  options.weight_decay = 1e-3;
  return options;
}

/// Cross-entropy that keeps what it was shown.
class Spy : public Objective {
 public:
  explicit Spy(const data::Dataset& set) : inner_(make_cross_entropy({}, set)) {}
  at::Tensor loss(const Batch& batch, const at::Tensor& logits) override {
    batches.emplace_back(batch.index.begin(), batch.index.end());
    views.push_back(batch.view);
    return factor * inner_->loss(batch, logits);
  }
  std::vector<std::vector<std::size_t>> batches;
  std::vector<int> views;
  double factor = 1;

 private:
  std::unique_ptr<Objective> inner_;
};

std::vector<float> trained(const data::Dataset& set, const TrainingOptions& options,
                           std::uint64_t seed, const std::string& model_name = "test-tiny",
                           const Stretch& stretch = {}) {
  auto model = made_model(model_name, int(set.classes.size()));
  const auto objective = make_cross_entropy(options, set);
  const auto done = train(model, set, options, *objective, seed, stretch);
  EXPECT_TRUE(done) << done.error().message;
  return model.store();
}

TEST(Training, TheSameSeedGivesTheSameFloatsAndAnotherGivesOthers) {
  const auto set = phantoms(64);
  auto options = quick();
  options.augment = {.shift = 2, .rotate = 10, .contrast = 0.2, .flip = true};
  const auto hash = [&](std::uint64_t seed) {
    return model_hash(trained(set, options, seed, "shufflenet_v2"));
  };
  EXPECT_EQ(hash(1), hash(1));
  EXPECT_NE(hash(1), hash(2));
}

TEST(Training, InTwoThreadsAtOnceGivesTheSameFloatsAsOneAfterTheOther) {
  const auto set = phantoms(96);
  auto options = quick();
  options.augment = {.shift = 2, .rotate = 10, .flip = true};
  const std::string models[] = {"shufflenet_v2", "mobilenet_v2"};
  std::string alone[2], together[2];
  for (int i = 0; i < 2; ++i) alone[i] = model_hash(trained(set, options, 1, models[i]));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 2; ++i)
      threads.emplace_back(
          [&, i] { together[i] = model_hash(trained(set, options, 1, models[i])); });
  }
  EXPECT_EQ(alone[0], together[0]);
  EXPECT_EQ(alone[1], together[1]);
}

TEST(Training, LearnsToTellLesionsFromHealthyTissue) {
  auto set = phantoms(500);
  std::vector<std::size_t> seen, unseen;
  for (std::size_t i = 0; i < set.size(); ++i) (i % 5 == 0 ? unseen : seen).push_back(i);
  const auto train_set = set.subset(seen), test_set = set.subset(unseen);
  auto model = made_model("shufflenet_v2");
  auto options = quick(6, 32);
  options.optimizer = "adamw";
  options.learning_rate = 0.003;
  const auto objective = make_cross_entropy(options, train_set);
  std::vector<double> losses;
  ASSERT_TRUE(train(model, train_set, options, *objective, 1, {},
                    [&](int, double loss) { return losses.push_back(loss), true; }));
  EXPECT_LT(losses.back(), 0.8 * losses.front());
  const auto probabilities = outcome_of(model, test_set).probabilities;
  // Of 100 images, an AUC of 0.75 by chance alone is more than four deviations away.
  EXPECT_GT(auc({probabilities, test_set.labels, 2}).value(), 0.75);
}

TEST(Training, ShowsEveryImageOnceAnEpochAndNeverABatchOfOne) {
  for (std::size_t images = 2; images <= 9; ++images) {
    const auto set = noise(images);
    for (const int size : {2, 3, 4, 8}) {
      auto model = made_model();
      Spy spy(set);
      auto options = quick(1, size);
      const auto done = train(model, set, options, spy, 1);
      ASSERT_TRUE(done) << done.error().message;
      std::multiset<std::size_t> shown;
      for (const auto& batch : spy.batches) {
        EXPECT_GE(batch.size(), 2u) << images << " images in batches of " << size;
        EXPECT_LE(batch.size(), std::size_t(size) + 1);
        shown.insert(batch.begin(), batch.end());
      }
      EXPECT_EQ(shown.size(), images);
      EXPECT_EQ(std::set(shown.begin(), shown.end()).size(), images);
      EXPECT_EQ(done->steps, spy.batches.size());
    }
  }
}

/// The model's values that are statistics, or those that are not.
std::vector<float> pieces_of(const models::FlatModel& model, bool statistics) {
  const auto values = model.store();
  std::vector<float> kept;
  for (const auto& piece : model.space().pieces()) {
    const auto part = std::span(values).subspan(piece.offset, piece.size);
    if (is_statistic(piece.role) == statistics) kept.insert(kept.end(), part.begin(), part.end());
  }
  return kept;
}

TEST(Training, StatisticsStayFromTheirShareOfTheScheduleOnWhileWeightsMove) {
  const auto set = phantoms(64);
  auto model = made_model();
  auto options = quick(4);
  options.freeze_statistics = 0.5;
  const auto objective = make_cross_entropy(options, set);
  std::vector<std::vector<float>> statistics, weights;
  ASSERT_TRUE(train(model, set, options, *objective, 1, {}, [&](int, double) {
    statistics.push_back(pieces_of(model, true));
    weights.push_back(pieces_of(model, false));
    return true;
  }));
  EXPECT_NE(statistics[0], statistics[1]);
  EXPECT_EQ(statistics[1], statistics[2]);
  EXPECT_EQ(statistics[2], statistics[3]);
  EXPECT_NE(weights[2], weights[3]);
  ASSERT_TRUE(train(model, set, options, *objective, 1, {0.5, 1, 4}));
  EXPECT_EQ(pieces_of(model, true), statistics[3]) << "a later stretch of the same schedule";
}

TEST(Training, ShufflesAnewEveryEpochAndGoesOnWhereTheLastRoundStopped) {
  const auto set = noise(16);
  const auto order = [&](int epochs, int first) {
    auto model = made_model();
    Spy spy(set);
    EXPECT_TRUE(train(model, set, quick(epochs, 16), spy, 1, {0, 1, first}));
    return spy.batches;
  };
  const auto three = order(3, 0);
  EXPECT_NE(three[0], three[1]);
  EXPECT_NE(three[1], three[2]);
  EXPECT_EQ(order(1, 2)[0], three[2]);
}

TEST(Training, ViewsRepeatAfterTheirNumberAndAreAlwaysNewAtZero) {
  const auto set = noise(8);
  const auto views = [&](int count, int first) {
    auto options = quick(5, 8);
    options.views = count;
    auto model = made_model();
    Spy spy(set);
    EXPECT_TRUE(train(model, set, options, spy, 1, {0, 1, first}));
    return spy.views;
  };
  EXPECT_THAT(views(2, 0), ElementsAre(0, 1, 0, 1, 0));
  EXPECT_THAT(views(3, 4), ElementsAre(1, 2, 0, 1, 2));
  EXPECT_THAT(views(0, 4), ElementsAre(4, 5, 6, 7, 8));
}

TEST(Training, ARoundIsAPieceOfTheWholeSchedule) {
  const auto set = phantoms(32);
  auto options = quick(4);
  options.momentum = 0;  // so that the optimiser carries nothing from round to round
  options.augment.shift = 2;
  const auto whole = trained(set, options, 1);
  auto model = made_model();
  options.epochs = 2;
  for (int round = 0; round < 2; ++round) {
    const auto objective = make_cross_entropy(options, set);
    ASSERT_TRUE(
        train(model, set, options, *objective, 1, {0.5 * round, 0.5 * (round + 1), 2 * round}));
  }
  EXPECT_EQ(model_hash(model.store()), model_hash(whole));
}

TEST(Training, ClipsTheGradientToItsNormAndNoMore) {
  const auto set = noise(16);
  const auto moved = [&](double factor, double clip) {
    auto model = made_model();
    const auto before = model.store();
    Spy spy(set);
    spy.factor = factor;
    auto options = quick(1, 16);
    options.momentum = options.weight_decay = 0;
    options.schedule = "constant";
    options.learning_rate = 0.125;
    options.clip_norm = clip;
    EXPECT_TRUE(train(model, set, options, spy, 1));
    const auto after = model.store();
    double square = 0;
    for (const auto& piece : model.space().pieces())
      for (std::size_t i = piece.offset;
           i < piece.offset + piece.size && !is_statistic(piece.role); ++i)
        square += std::pow(double(after[i]) - before[i], 2);
    return std::sqrt(square) / 0.125;
  };
  const double free = moved(1, 0);
  EXPECT_GT(free, 0.01);
  EXPECT_NEAR(moved(1000, 0), 1000 * free, 0.01 * 1000 * free);
  EXPECT_NEAR(moved(1000, 0.5), 0.5, 1e-3) << "a long one is shortened";
  EXPECT_NEAR(moved(1, 2 * free), free, 1e-6) << "a short one is left alone";
}

TEST(Training, RefusesALossThatIsNotFiniteAndSaysWhatToDo) {
  const auto set = noise(8);
  auto model = made_model();
  Spy spy(set);
  spy.factor = INFINITY;
  const auto done = train(model, set, quick(), spy, 1);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::kInvalid);
  EXPECT_THAT(done.error().message, HasSubstr("no longer finite in epoch 1; lower learning_rate"));
}

TEST(Training, NeedsTwoImages) {
  for (const std::size_t images : {0, 1}) {
    const auto set = noise(images);
    auto model = made_model();
    Spy spy(set);
    const auto done = train(model, set, quick(), spy, 1);
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message,
                HasSubstr("at least two images; there are " + std::to_string(images)));
  }
}

TEST(Training, OfNoEpochsLeavesTheModelAlone) {
  const auto set = noise(8);
  EXPECT_EQ(trained(set, quick(0), 1), made_model().store());
}

TEST(Training, StopsWhenTheCallbackSaysSo) {
  const auto set = noise(8);
  auto model = made_model();
  Spy spy(set);
  std::vector<int> epochs;
  ASSERT_TRUE(train(model, set, quick(9, 8), spy, 1, {0, 1, 5},
                    [&](int epoch, double) { return epochs.push_back(epoch), epoch < 6; }));
  EXPECT_THAT(epochs, ElementsAre(5, 6));
  EXPECT_EQ(spy.batches.size(), 2u);
}

TEST(CrossEntropy, BalancedWeightsAreTheInverseFrequencies) {
  data::Dataset set = noise(4);
  set.labels = {0, 0, 0, 1};
  TrainingOptions options;
  options.class_weights = "balanced";
  const std::vector<std::size_t> index{0, 1, 2, 3};
  const auto logits = torch::tensor({{2.0f, 0.0f}, {0.0f, 1.0f}, {1.0f, 1.0f}, {0.5f, 0.0f}});
  const auto nll = [](double right, double wrong) { return std::log1p(std::exp(wrong - right)); };
  const double rare = 4.0 / (2 * 1), common = 4.0 / (2 * 3);
  const double expected =
      (common * (nll(2, 0) + nll(0, 1) + nll(1, 1)) + rare * nll(0, 0.5)) / (3 * common + rare);
  const auto batch = make_batch(set, index);
  EXPECT_NEAR(make_cross_entropy(options, set)->loss(batch, logits).item<double>(), expected, 1e-6);
  const double plain = (nll(2, 0) + nll(0, 1) + nll(1, 1) + nll(0, 0.5)) / 4;
  EXPECT_NEAR(make_cross_entropy({}, set)->loss(batch, logits).item<double>(), plain, 1e-6);
}

TEST(CrossEntropy, AClassThatDoesNotOccurDoesNotMakeTheWeightsInfinite) {
  data::Dataset set = noise(4);
  set.classes = {"a", "b", "never"};
  TrainingOptions options;
  options.class_weights = "balanced";
  const std::vector<std::size_t> index{0, 1};
  EXPECT_TRUE(std::isfinite(make_cross_entropy(options, set)
                                ->loss(make_batch(set, index), torch::randn({2, 3}))
                                .item<double>()));
}

TEST(CrossEntropy, LabelSmoothingSharesAPartOfTheTargetAmongAllClasses) {
  data::Dataset set = noise(2);
  set.labels = {0, 0};
  TrainingOptions options;
  options.label_smoothing = 0.2;
  const std::vector<std::size_t> index{0, 1};
  const auto logits = torch::tensor({{1.0f, 0.0f}, {1.0f, 0.0f}});
  const double right = std::log1p(std::exp(-1.0)), wrong = std::log1p(std::exp(1.0));
  EXPECT_NEAR(make_cross_entropy(options, set)->loss(make_batch(set, index), logits).item<double>(),
              0.9 * right + 0.1 * wrong, 1e-6);
}

TEST(CrossEntropy, OfTwoHeadsIsTheMeanOfBoth) {
  data::Dataset set = noise(4);
  set.labels = {0, 0, 0, 1};
  TrainingOptions options;
  options.class_weights = "balanced";
  options.label_smoothing = 0.1;
  const auto objective = make_cross_entropy(options, set);
  const std::vector<std::size_t> index{0, 3, 1};
  const auto batch = make_batch(set, index);
  torch::manual_seed(1);
  const auto first = torch::randn({3, 2}), second = torch::randn({3, 2});
  const auto alone = [&](const at::Tensor& head) { return objective->loss(batch, head).item<double>(); };
  EXPECT_NEAR(alone(torch::stack({first, second}, 1)), (alone(first) + alone(second)) / 2, 1e-6);
}

TEST(Predict, GivesProbabilitiesThatDoNotDependOnTheBatch) {
  const auto set = phantoms(50, 3);
  auto model = made_model("shufflenet_v2", 3);
  const auto once = outcome_of(model, set, 50).probabilities, in_pieces = outcome_of(model, set, 7).probabilities;
  ASSERT_EQ(once.size(), 150u);
  for (std::size_t i = 0; i < 50; ++i)
    EXPECT_NEAR(once[3 * i] + once[3 * i + 1] + once[3 * i + 2], 1, 1e-5);
  for (std::size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(once[i], in_pieces[i], 1e-5);
  EXPECT_TRUE(outcome_of(model, set.like()).probabilities.empty());
}

TEST(Predict, LeavesTheModelAsItIs) {
  const auto set = noise(10);
  auto model = made_model();
  const auto before = model.store();
  outcome_of(model, set);
  EXPECT_EQ(model.store(), before) << "running statistics belong to training";
}

TEST(LogitsOf, AViewAreThoseOfThatAugmentation) {
  const auto set = noise(5, 1, 8);
  AugmentOptions augment;
  augment.rotate = 30;
  const auto sum = [](const at::Tensor& images) { return images.flatten(1).sum(1, true); };
  std::vector<std::size_t> all{0, 1, 2, 3, 4};
  EXPECT_TRUE(torch::allclose(logits_of(sum, set, augment, 9, 3, 2),
                              sum(make_batch(set, all, augment, 9, 3).images)));
  EXPECT_TRUE(
      torch::allclose(logits_of(sum, set, augment, 9, -1, 2), sum(make_batch(set, all).images)));
}

}  // namespace
}  // namespace preceptor::training
