#include "deploy/export.h"

#include <gmock/gmock.h>
#include <torch/script.h>

#include "tests/deploy/made.h"

namespace preceptor::deploy {
namespace {

void expect_same(const torch::Tensor& theirs, const torch::Tensor& ours) {
  EXPECT_LE((theirs - ours).abs().max().item<double>(), 1e-4 * std::max(1.0, ours.abs().max().item<double>()));
}

TEST(Export, TorchScriptOfEveryModelGivesOurLogitsAtAnyBatch) {
  torch::NoGradGuard no_grad;
  test::TempDir dir;
  const auto images = test::images(1, 5);
  for (const auto& name : models::zoo().names()) {
    SCOPED_TRACE(name);
    auto model = test::made_model(name, 1);
    ASSERT_TRUE(models::save_model(dir / "model", model));
    const auto done = export_model(dir / "model", Format::kTorchScript, dir / "script");
    ASSERT_TRUE(done.has_value()) << done.error().message;
    torch::jit::ExtraFilesMap files{{"spec", ""}, {"preprocessing", ""}};
    auto script = torch::jit::load((dir / "script").string(), torch::kCPU, files);
    EXPECT_THAT(files["spec"], testing::HasSubstr(name));
    EXPECT_THAT(files["preprocessing"], testing::HasSubstr("p / 127.5 - 1"));
    for (const int batch : {1, 3}) {
      const auto some = images.slice(0, batch - 1, 2 * batch - 1);
      expect_same(script.forward({some}).toTensor(), model.forward(some));
    }
  }
}

TEST(Export, SafetensorsHoldsTheNetworkWithItsBranchesFolded) {
  torch::NoGradGuard no_grad;
  test::TempDir dir;
  const auto images = test::images(1, 3);
  for (const std::string name : {"mobileone", "repvit", "resnet18"}) {
    SCOPED_TRACE(name);
    auto model = test::made_model(name, 1);
    ASSERT_TRUE(models::save_model(dir / "model", model, {{"job", "trial"}, {"model_hash", "abc"}}));
    const auto done = export_model(dir / "model", Format::kSafetensors, dir / "folded");
    ASSERT_TRUE(done.has_value()) << done.error().message;
    EXPECT_EQ(done->bytes, std::filesystem::file_size(dir / "folded"));
    auto folded = models::load_model(dir / "folded");
    ASSERT_TRUE(folded.has_value()) << folded.error().message;
    const bool branches = name != "resnet18";
    EXPECT_EQ(folded->model.spec().structure.fused, branches);
    EXPECT_EQ(folded->model.space().size() < model.space().size(), branches);
    EXPECT_EQ(folded->metadata.at("job"), "trial");
    EXPECT_EQ(folded->metadata.contains("source_model_hash"), branches) << "the hash is of other parameters";
    folded->model.network().eval();
    expect_same(folded->model.forward(images), model.forward(images));
  }
}

TEST(Export, AFormatThatNobodyKnowsIsRefusedWithThoseThatAre) {
  const auto format = format_of("pdf");
  ASSERT_FALSE(format.has_value());
  EXPECT_THAT(format.error().message, testing::HasSubstr("onnx, torchscript, safetensors"));
}

}  // namespace
}  // namespace preceptor::deploy
