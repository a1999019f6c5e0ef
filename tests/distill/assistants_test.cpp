#include "distill/assistants.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "tests/training/made.h"

namespace preceptor::distill {
namespace {

using testing::HasSubstr;
using training::test::made_model;
using training::test::phantoms;

class AssistantsTest : public testing::Test {
 protected:
  AssistantsTest() {
    auto good = made_model();
    auto options = quick(20);
    const auto objective = training::make_supervised(options, set);
    EXPECT_TRUE(training::train(good, set, options, *objective, 1));
    teacher = Teacher::wrap(std::make_shared<models::FlatModel>(std::move(good)));
  }
  static training::TrainingOptions quick(int epochs) {
    training::TrainingOptions options;
    options.optimizer = "adamw";
    options.learning_rate = 0.01;
    options.epochs = epochs;
    return options;
  }
  static AssistantOptions assistant(int epochs) { return {{"test-tiny"}, quick(epochs), {"soft-target", 2, 0, 1}}; }

  /// Mean KL from the teacher's probabilities to another's, in nats.
  double distance(const Teacher& other) const {
    const auto of = [&](const Teacher& t) { return training::logits_of(t.network(), set, {}, 0, -1).log_softmax(1); };
    const auto p = of(teacher), q = of(other);
    return (p.exp() * (p - q)).sum(1).mean().item<double>();
  }

  data::Dataset set = phantoms(200);
  Teacher teacher = Teacher::wrap(nullptr);
};

TEST_F(AssistantsTest, NoneLeavesTheTeacherToTheStudent) {
  EXPECT_EQ(through_assistants(teacher, {}, set, 1).value().model(), teacher.model());
}

TEST_F(AssistantsTest, AreTrainedOneAfterTheOtherAndTheLastTeaches) {
  std::vector<AssistantOptions> two{assistant(40), assistant(40)};
  two[1].model = {"test-tiny", 0.25};
  std::vector<std::size_t> order;
  const auto last = through_assistants(teacher, two, set, 1, [&](std::size_t which, int, double) { order.push_back(which); });
  ASSERT_TRUE(last) << last.error().message;
  EXPECT_EQ(order.size(), 80u);
  EXPECT_TRUE(std::ranges::is_sorted(order));
  EXPECT_EQ(last->model()->spec().model.width, 0.25);
  const std::vector<AssistantOptions> untrained{assistant(0)};
  EXPECT_LT(distance(*last), 0.3 * distance(through_assistants(teacher, untrained, set, 1).value())) << "what the teacher knows came through both, without a label";
}

TEST_F(AssistantsTest, EachHearsTheOneBeforeItAndNotTheTeacher) {
  // The first knows nothing; a second that heard the teacher would come near it all the same.
  const std::vector<AssistantOptions> two{assistant(0), assistant(40)}, one{assistant(40)};
  const auto through_ignorance = through_assistants(teacher, two, set, 1), straight = through_assistants(teacher, one, set, 1);
  ASSERT_TRUE(through_ignorance && straight);
  EXPECT_GT(distance(*through_ignorance), 3 * distance(*straight));
}

TEST_F(AssistantsTest, AreTheSameForTheSameSeed) {
  const std::vector<AssistantOptions> two{assistant(1), assistant(1)};
  const auto hash = [&](std::uint64_t seed) { return model_hash(through_assistants(teacher, two, set, seed).value().model()->store()); };
  EXPECT_EQ(hash(1), hash(1));
  EXPECT_NE(hash(1), hash(2));
}

TEST_F(AssistantsTest, AMistakeIsFoundBeforehandAndNamedByItsPlace) {
  const auto why = [&](const AssistantOptions& second) {
    const std::vector<AssistantOptions> two{assistant(1), second};
    const auto checked = check(two, set);
    return checked ? "fine" : checked.error().message;
  };
  EXPECT_EQ(why(assistant(1)), "fine");
  auto wrong = assistant(1);
  wrong.model = {"shufflenet_v2", 0.7};
  EXPECT_THAT(why(wrong), HasSubstr("assistants[1]: shufflenet_v2 has widths"));
  wrong = assistant(1);
  wrong.distillation.loss = "logit-standardised";
  EXPECT_THAT(why(wrong), HasSubstr("assistants[1]: distillation loss 'logit-standardised' needs 3 classes"));
}

TEST_F(AssistantsTest, ReadsFromAList) {
  const auto yaml = parse_yaml("{model: {name: resnet18}, training: {epochs: 4}, distillation: {features: at}}", "test").value();
  const auto read = read_options<AssistantOptions>(yaml, "test");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->model.name, "resnet18");
  EXPECT_EQ(read->distillation.features, "at");
}

}  // namespace
}  // namespace preceptor::distill
