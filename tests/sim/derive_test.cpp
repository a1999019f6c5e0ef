// Teacher and student that begin with somebody else's weights.
#include "coordinator/derive.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "common/file.h"
#include "tests/support/temp_dir.h"

namespace preceptor::coordinator {
namespace {

using testing::HasSubstr;

class DeriveFromOthers : public testing::Test {
 protected:
  DeriveFromOthers() {
    data::DataOptions options;
    options.phantom = {.images = 120, .sites = 1};
    options.partition.consortium = 0.5;
    federation_ = data::load(options, 1).value();
    teacher_.training.epochs = student_.training.epochs = 0;
    teacher_.model = student_.model;
  }

  /// A file as torchvision's users write it: the student's network, random values, no spec.
  std::string weights(int classes) {
    theirs_ = models::FlatModel::create({student_.model, {classes, 1, 28}}).value();
    theirs_->initialise(RandomStream(9, "theirs"));
    const auto path = dir_ / "w.safetensors";
    EXPECT_TRUE(models::save_model(path, *theirs_));
    const auto file = SafetensorsFile::load(path).value();
    EXPECT_TRUE(write_file(path, encode_safetensors(file.tensors(), {{"format", "pt"}})));
    return path.string();
  }

  Result<Derived> run() { return derive(teacher_, student_, federation_.consortium, 1); }

  test::TempDir dir_;
  data::Federation federation_;
  TeacherOptions teacher_;
  StudentOptions student_;
  std::optional<models::FlatModel> theirs_;
};

TEST_F(DeriveFromOthers, TheStudentTakesAllButAHeadForOtherClasses) {
  student_.path = weights(7);
  const auto derived = run();
  ASSERT_TRUE(derived) << derived.error().message;
  const auto is = derived->student.store(), was = theirs_->store();
  for (const auto& piece : derived->student.space().pieces()) {
    const auto of = [&](const std::vector<float>& values) { return std::span(values).subspan(piece.offset, piece.size); };
    if (!piece.name.starts_with("fc.")) {
      EXPECT_TRUE(std::ranges::equal(of(is), of(was))) << piece.name;
    }
  }
}

TEST_F(DeriveFromOthers, ATeacherWhoseHeadFitsNeedsNoTraining) {
  teacher_.path = weights(2);
  const auto derived = run();
  ASSERT_TRUE(derived) << derived.error().message;
  ASSERT_TRUE(derived->teacher && derived->teacher->model());
  EXPECT_EQ(derived->teacher->model()->store(), theirs_->store());
  EXPECT_TRUE(derived->teacher_is_new) << "no file holds it as a model";
}

TEST_F(DeriveFromOthers, ATeacherWithoutAHeadIsTrainedOrRefused) {
  teacher_.path = weights(7);
  const auto refused = run();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::kInvalid);
  EXPECT_THAT(refused.error().message, HasSubstr("teacher.training.epochs"));
  EXPECT_THAT(refused.error().message, HasSubstr("fc.weight"));
  teacher_.training.epochs = 1;
  const auto trained = run();
  ASSERT_TRUE(trained) << trained.error().message;
  EXPECT_TRUE(trained->teacher && trained->teacher->model());
}

TEST_F(DeriveFromOthers, WeightsOfAnotherNetworkAreRefusedUnderTheKeyThatNamesThem) {
  student_.path = weights(2);
  student_.model.name = "mobilenet_v2";
  const auto refused = run();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("student.path: "));
  EXPECT_THAT(refused.error().message, HasSubstr("w.safetensors"));
}

TEST_F(DeriveFromOthers, AssistantsAndPeersChangeTheStudentAndNotTheTeacher) {
  teacher_.training.epochs = student_.training.epochs = 1;
  const auto plain = run();
  student_.assistants.resize(1);
  student_.assistants[0].model = student_.model;
  const auto assisted = run();
  student_.mutual.peers = {student_.model};
  const auto both = run();
  ASSERT_TRUE(plain && assisted && both);
  EXPECT_EQ(assisted->teacher->model()->store(), plain->teacher->model()->store());
  EXPECT_NE(assisted->student.store(), plain->student.store());
  EXPECT_NE(both->student.store(), assisted->student.store());
  teacher_.training.epochs = 0;
  student_.assistants.clear();
  EXPECT_TRUE(run()) << "peers need no teacher";
}

TEST_F(DeriveFromOthers, AMistakeInWhatHelpsTheStudentIsFoundBeforeTheTeacherIsTrained) {
  const auto why = [&] {
    const auto derived = run();
    return derived ? "derived" : derived.error().message;
  };
  student_.assistants.resize(1);
  EXPECT_THAT(why(), HasSubstr("student: assistants need a teacher"));
  teacher_.training.epochs = 1000000;  // would take days
  student_.assistants[0].model.name = "resnet1";
  EXPECT_THAT(why(), HasSubstr("student: assistants[0]: unknown model 'resnet1'"));
  student_.assistants.clear();
  student_.mutual.peers = {{"resnet1"}};
  EXPECT_THAT(why(), HasSubstr("student: mutual.peers[0]: unknown model 'resnet1'"));
  student_.mutual.peers.clear();
  student_.training.epochs = 1;
  student_.distillation.features = "crd";
  EXPECT_THAT(why(), HasSubstr("student: unknown feature loss 'crd'"));
}

TEST_F(DeriveFromOthers, ACompressedStudentsFileSaysItsStructure) {
  models::ModelSpec spec{student_.model, {2, 1, 28}};
  spec.structure.low_rank = {{"conv5.0", "8"}};
  spec.structure.int8 = {{"fc", "observed"}};
  const auto compressed = models::FlatModel::create(spec).value();
  student_.path = (dir_ / "compressed.safetensors").string();
  ASSERT_TRUE(models::save_model(student_.path, compressed));
  auto derived = run();
  ASSERT_TRUE(derived) << derived.error().message;
  EXPECT_EQ(write_options(spec), [&] { auto has = derived->student.spec(); return write_options(has); }());
  student_.lora.rank = 2;
  derived = run();
  ASSERT_TRUE(derived) << derived.error().message;
  EXPECT_FALSE(derived->student.spec().structure.lora.empty());
  student_.lora.layers = {"nothing"};
  derived = run();
  ASSERT_FALSE(derived);
  EXPECT_THAT(derived.error().message, HasSubstr("student.lora"));
}

}  // namespace
}  // namespace preceptor::coordinator
