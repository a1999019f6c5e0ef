#include "distill/mutual.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "distill/distill.h"
#include "tests/training/made.h"
#include "training/outcome.h"

namespace preceptor::distill {
namespace {

using testing::HasSubstr;
using training::test::made_model;
using training::test::phantoms;

training::TrainingOptions quick(int epochs) {
  training::TrainingOptions options;
  options.optimizer = "adamw";
  options.learning_rate = 0.01;
  options.epochs = epochs;
  return options;
}

/// KL(p ‖ q) of two networks' probabilities, mean over the batch, written out.
at::Tensor kl(const at::Tensor& p, const at::Tensor& q) {
  const auto a = p.softmax(1), b = q.softmax(1);
  return (a * (a / b).log()).sum(1).mean();
}

class MutualTest : public testing::Test {
 protected:
  MutualOptions with(std::size_t peers, double weight = 1) const {
    return {std::vector<models::ModelOptions>(peers, {"test-tiny"}), weight, 1};
  }
  data::Dataset set = phantoms(200);
};

TEST_F(MutualTest, EachLossIsItsOwnPlusTheMeanPullByTheOthers) {
  const auto options = with(2, 0.7);
  auto peers = make_peers(options, set, "cpu", 1).value();
  auto student = made_model();
  const auto training = quick(1);
  const std::vector<std::size_t> index{0, 1, 2, 3, 4, 5};
  const auto batch = training::make_batch(set, index);
  auto hard = training::make_supervised(training, set);
  const auto objective = make_mutual(options, training::make_supervised(training, set), peers, set, training);

  const auto logits = student.forward(batch.images);
  const auto a = peers[0].forward(batch.images), b = peers[1].forward(batch.images);
  const auto expected = hard->loss(batch, logits) + 0.7 * (kl(a, logits) + kl(b, logits)) / 2;
  peers[0].gradients().zero_();
  (hard->loss(batch, a) + 0.7 * (kl(logits.detach(), a) + kl(b.detach(), a)) / 2).backward();
  const auto gradient = peers[0].gradients().clone();

  const auto loss = objective->loss(batch, logits);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-5);
  const auto at_peer = peers[0].gradients().clone();
  EXPECT_TRUE(torch::allclose(at_peer, gradient, 1e-4, 1e-6));
  loss.backward();
  EXPECT_TRUE(torch::equal(peers[0].gradients(), at_peer)) << "what pulls the student is detached";
}

TEST_F(MutualTest, StudentAndPeersAllLearnAndComeToAgree) {
  const auto run = [&](double weight) {
    const auto options = with(1, weight);
    auto peers = make_peers(options, set, "cpu", 1).value();
    auto student = made_model();
    const double before = training::headline(training::outcome_of(peers[0], set));
    const auto training = quick(15);
    const auto objective = make_mutual(options, training::make_supervised(training, set), peers, set, training);
    EXPECT_TRUE(training::train(student, set, training, *objective, 1));
    EXPECT_GT(training::headline(training::outcome_of(student, set)), 0.9);
    EXPECT_GT(training::headline(training::outcome_of(peers[0], set)), std::max(0.9, before));
    const auto of = [&](models::FlatModel& model) {
      return training::logits_of([&](const at::Tensor& x) { return model.forward(x); }, set, {}, 0, -1);
    };
    return kl(of(peers[0]), of(student)).item<double>();
  };
  EXPECT_LT(run(3), 0.7 * run(0));
}

TEST_F(MutualTest, IsTheSameForTheSameSeed) {
  const auto options = with(2);
  const auto hashes = [&](std::uint64_t seed) {
    auto peers = make_peers(options, set, "cpu", seed).value();
    auto student = made_model();
    const auto training = quick(2);
    const auto objective = make_mutual(options, training::make_supervised(training, set), peers, set, training);
    EXPECT_TRUE(training::train(student, set, training, *objective, seed));
    return std::vector{model_hash(student.store()), model_hash(peers[0].store()), model_hash(peers[1].store())};
  };
  const auto once = hashes(1);
  EXPECT_EQ(once, hashes(1));
  EXPECT_NE(once, hashes(2));
  EXPECT_NE(once[1], once[2]) << "peers of one architecture begin with different values";
}

TEST_F(MutualTest, GoesTogetherWithATeacherAndItsFeatures) {
  const auto options = with(1);
  auto peers = make_peers({{{"shufflenet_v2", 0.5, "small"}}, 1, 1}, set, "cpu", 1).value();
  const auto teacher = Teacher::wrap(std::make_shared<models::FlatModel>(made_model("shufflenet_v2", 2, 3)));
  auto training = quick(1);
  DistillationOptions distillation;
  distillation.features = "fitnet";  // which has a step of its own
  const auto trained = [&](bool mutual) {
    auto student = made_model("shufflenet_v2");
    auto objective = make_objective(distillation, teacher, set, training, 1).value();
    if (mutual) objective = make_mutual(options, std::move(objective), peers, set, training);
    EXPECT_TRUE(training::train(student, set, training, *objective, 1));
    return model_hash(student.store());
  };
  EXPECT_NE(trained(true), trained(false));
}

TEST_F(MutualTest, APeerThatCannotBeBuiltIsNamedByItsPlace) {
  const auto why = [&](const models::ModelOptions& second) {
    const auto peers = make_peers({{{"test-tiny"}, second}, 1, 1}, set, "cpu", 1);
    return peers ? "made" : peers.error().message;
  };
  EXPECT_EQ(why({"test-tiny"}), "made");
  EXPECT_THAT(why({"resnet1"}), HasSubstr("mutual.peers[1]: unknown model 'resnet1'"));
  EXPECT_THAT(why({"unet", 1, "standard"}), HasSubstr("mutual.peers[1]: unet is for segmentation"));
  EXPECT_THAT(why({"shufflenet_v2", 0.7}), HasSubstr("mutual.peers[1]: shufflenet_v2 has widths"));
}

}  // namespace
}  // namespace preceptor::distill
