#include "models/weights.h"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include "common/file.h"
#include "common/half.h"
#include "models/stem.h"
#include "tests/support/temp_dir.h"

namespace preceptor::models {
namespace {

using test::TempDir;
using testing::HasSubstr;

/// An architecture and one source of weights for it.
struct Foreign {
  std::string model, source;
};
void PrintTo(const Foreign& foreign, std::ostream* out) { *out << foreign.model << " from " << foreign.source; }

std::vector<Foreign> all_foreign() {
  std::vector<Foreign> all;
  for (const auto& name : zoo().names())
    for (const auto& [source, names] : (*zoo().find(name))->names) all.push_back({name, source});
  return all;
}

/// A tensor that a test writes, with bytes of its own.
struct Written {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  Bytes bytes;
};

class Weights : public testing::TestWithParam<Foreign> {
 protected:
  /// The architecture's smallest size at the smallest image that it takes, with values that every format holds
  /// exactly: multiples of 1/64 in (−2, 2).
  FlatModel make(std::uint64_t seed, int classes = 5, int channels = 3) const {
    for (const int size : {28, 64, 224})
      if (auto model = create_at_size((*zoo().find(GetParam().model))->sizes.front(), {classes, channels, size})) {
        std::vector<std::uint32_t> bits(model->space().size());
        RandomStream(seed, "weights").fill(bits);
        std::vector<float> values(bits.size());
        std::ranges::transform(bits, values.begin(), [](std::uint32_t b) { return (float(b % 255) - 127.0f) / 64.0f; });
        model->load(values);
        return std::move(*model);
      }
    throw std::logic_error(GetParam().model + " takes no image size");
  }

  /// The model's values as that source would store them, with what such files have besides. Formats take turns.
  std::vector<Written> tensors(const FlatModel& model, bool halves = true) const {
    const auto values = model.store();
    const auto& names = (*zoo().find(GetParam().model))->names.at(GetParam().source);
    std::vector<Written> all;
    for (const auto& piece : model.space().pieces()) {
      if (names(piece.name).empty()) continue;
      Written tensor{names(piece.name), "F32", piece.shape, {}};
      if (halves && all.size() % 3 > 0) tensor.dtype = all.size() % 3 == 1 ? "F16" : "BF16";
      const auto part = std::span(values).subspan(piece.offset, piece.size);
      if (tensor.dtype == "F32") {
        const auto bytes = std::as_bytes(part);
        tensor.bytes.assign(bytes.begin(), bytes.end());
      } else {
        std::vector<std::uint16_t> rounded(part.size());
        std::ranges::transform(part, rounded.begin(), tensor.dtype == "F16" ? to_fp16 : to_bf16);
        const auto bytes = std::as_bytes(std::span(rounded));
        tensor.bytes.assign(bytes.begin(), bytes.end());
      }
      all.push_back(std::move(tensor));
    }
    Written counter{"somewhere.num_batches_tracked", "I64", {}, {}};
    ByteWriter(counter.bytes).put(std::int64_t{7});
    all.insert(all.begin(), std::move(counter));
    return all;
  }

  std::filesystem::path write(const std::vector<Written>& tensors) const {
    std::vector<StoredTensor> stored;
    for (const auto& tensor : tensors) stored.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes});
    EXPECT_TRUE(write_file(dir_ / "w.safetensors", encode_safetensors(stored, {{"format", "pt"}})));
    return dir_ / "w.safetensors";
  }

  static std::span<const float> part(const std::vector<float>& values, const Piece& piece) {
    return std::span(values).subspan(piece.offset, piece.size);
  }

  /// No head: the network's first weight.
  static Written& first_weight(std::vector<Written>& all) { return all[1]; }

  TempDir dir_;
};

TEST_P(Weights, EveryValueArrivesInEveryFormat) {
  auto theirs = make(1), ours = make(2);
  const auto before = ours.store();
  const auto loaded = load_weights(ours, write(tensors(theirs)));
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_EQ(loaded->pieces + loaded->left_out.size(), ours.space().pieces().size());
  EXPECT_TRUE(loaded->unused.empty());
  const auto after = ours.store(), expected = theirs.store();
  const auto& names = (*zoo().find(GetParam().model))->names.at(GetParam().source);
  for (const auto& piece : ours.space().pieces())
    EXPECT_TRUE(std::ranges::equal(part(after, piece), part(names(piece.name).empty() ? before : expected, piece))) << piece.name;
}

TEST_P(Weights, AHeadForOtherClassesStaysAsItIsAndIsNamed) {
  auto theirs = make(1, 11), ours = make(2);
  const auto before = ours.store();
  const auto loaded = load_weights(ours, write(tensors(theirs)));
  ASSERT_TRUE(loaded) << loaded.error().message;
  ASSERT_FALSE(loaded->left_out.empty());
  const auto after = ours.store(), expected = theirs.store();
  for (std::size_t i = 0; i < ours.space().pieces().size(); ++i) {
    const auto &piece = ours.space().pieces()[i], &source = theirs.space().pieces()[i];
    const auto named = std::ranges::find(loaded->left_out, piece.name, &LoadedWeights::LeftOut::piece) != loaded->left_out.end();
    EXPECT_TRUE(std::ranges::equal(part(after, piece), named ? part(before, piece) : part(expected, source))) << piece.name;
    if (piece.shape != source.shape) {
      EXPECT_TRUE(named) << piece.name;
    }
  }
}

TEST_P(Weights, AGreyImageGivesWhatItGaveAsThreeEqualChannels) {
  for (const auto& [from, to] : {std::pair(3, 1), std::pair(1, 3)}) {
    auto theirs = make(1, 5, from), ours = make(2, 5, to);
    theirs.initialise(RandomStream(1, "init"));
    const auto loaded = load_weights(ours, write(tensors(theirs, /*halves=*/false)));  // rounding would hide a wrong sum
    ASSERT_TRUE(loaded) << loaded.error().message;
    if (!loaded->left_out.empty()) continue;  // values that the file lacks differ between the two
    theirs.network().eval();
    ours.network().eval();
    torch::NoGradGuard no_grad;
    const int size = ours.spec().task.image_size;
    const auto grey = torch::randn({2, 1, size, size});
    const auto was = theirs.forward(grey.expand({2, from, size, size})), is = ours.forward(grey.expand({2, to, size, size}));
    EXPECT_LT((was - is).abs().max().item<double>(), 1e-4 * (1 + was.abs().max().item<double>())) << from << " to " << to;
  }
}

TEST_P(Weights, AMissingTensorIsNamedWithWhatIsThereInstead) {
  auto ours = make(2);
  const auto before = ours.store();
  auto written = tensors(make(1));
  const auto name = std::exchange(first_weight(written).name, "renamed.weight");
  const auto loaded = load_weights(ours, write(written));
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Code::kInvalid);
  EXPECT_THAT(loaded.error().message, HasSubstr("w.safetensors: "));
  EXPECT_THAT(loaded.error().message, HasSubstr("'" + name + "'"));
  EXPECT_THAT(loaded.error().message, HasSubstr("(not there)"));
  EXPECT_THAT(loaded.error().message, HasSubstr("renamed.weight"));
  EXPECT_EQ(ours.store(), before);
}

TEST_P(Weights, ATensorOfAnotherShapeIsNamedWithBothShapes) {
  auto ours = make(2);
  auto written = tensors(make(1));
  auto& tensor = first_weight(written);
  tensor.shape.push_back(2);
  const auto bytes = tensor.bytes;
  tensor.bytes.insert(tensor.bytes.end(), bytes.begin(), bytes.end());
  const auto loaded = load_weights(ours, write(written));
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Code::kInvalid);
  EXPECT_THAT(loaded.error().message, HasSubstr(fmt::format("'{}' [", tensor.name)));
  EXPECT_THAT(loaded.error().message, HasSubstr(fmt::format("(is [{}]", fmt::join(tensor.shape, ", "))));
}

TEST_P(Weights, ValuesThatAreNotFiniteAreRefused) {
  auto ours = make(2);
  const auto before = ours.store();
  auto theirs = make(1);
  theirs.values()[std::int64_t(theirs.space().pieces().back().offset)] = std::numeric_limits<float>::infinity();
  const auto loaded = load_weights(ours, write(tensors(theirs)));
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, Code::kCorrupt);
  EXPECT_THAT(loaded.error().message, HasSubstr("not finite"));
  EXPECT_EQ(ours.store(), before);
}

TEST_P(Weights, TensorsThatNoPieceAskedForAreReported) {
  auto ours = make(2);
  auto written = tensors(make(1));
  written.push_back({"one.layer.more", "F32", {1}, Bytes(4)});
  const auto loaded = load_weights(ours, write(written));
  ASSERT_TRUE(loaded) << loaded.error().message;
  EXPECT_THAT(loaded->unused, testing::ElementsAre("one.layer.more"));
}

INSTANTIATE_TEST_SUITE_P(Zoo, Weights, testing::ValuesIn(all_foreign()),
                         [](const auto& test) { return test.param.model + "_" + test.param.source; });

/// Names as they stand in timm's files of mobilenetv2_100 and mobilenetv3_small_100.
TEST(WeightsFile, OfTimmNameAMobileNetsBlocksByStageAndPlace) {
  const auto timm = [](const char* model, const char* ours) { return (*zoo().find(model))->names.at("timm")(ours); };
  const std::pair<const char*, const char*> v2[] = {{"features.0.0.weight", "conv_stem.weight"},
                                                    {"features.0.1.running_mean", "bn1.running_mean"},
                                                    {"features.1.conv.0.0.weight", "blocks.0.0.conv_dw.weight"},
                                                    {"features.1.conv.1.weight", "blocks.0.0.conv_pw.weight"},
                                                    {"features.1.conv.2.bias", "blocks.0.0.bn2.bias"},
                                                    {"features.2.conv.0.0.weight", "blocks.1.0.conv_pw.weight"},
                                                    {"features.2.conv.1.0.weight", "blocks.1.0.conv_dw.weight"},
                                                    {"features.2.conv.2.weight", "blocks.1.0.conv_pwl.weight"},
                                                    {"features.3.conv.3.running_var", "blocks.1.1.bn3.running_var"},
                                                    {"features.4.conv.0.1.weight", "blocks.2.0.bn1.weight"},
                                                    {"features.17.conv.2.weight", "blocks.6.0.conv_pwl.weight"},
                                                    {"features.18.0.weight", "conv_head.weight"},
                                                    {"features.18.1.weight", "bn2.weight"},
                                                    {"classifier.1.bias", "classifier.bias"}};
  for (const auto& [ours, theirs] : v2) EXPECT_EQ(timm("mobilenet_v2", ours), theirs) << ours;
  const std::pair<const char*, const char*> v3[] = {{"features.0.0.weight", "conv_stem.weight"},
                                                    {"features.1.block.0.0.weight", "blocks.0.0.conv_dw.weight"},
                                                    {"features.1.block.1.fc1.weight", "blocks.0.0.se.conv_reduce.weight"},
                                                    {"features.1.block.2.0.weight", "blocks.0.0.conv_pw.weight"},
                                                    {"features.2.block.0.0.weight", "blocks.1.0.conv_pw.weight"},
                                                    {"features.2.block.2.0.weight", "blocks.1.0.conv_pwl.weight"},
                                                    {"features.2.block.2.1.bias", "blocks.1.0.bn3.bias"},
                                                    {"features.4.block.2.fc2.bias", "blocks.2.0.se.conv_expand.bias"},
                                                    {"features.4.block.3.0.weight", "blocks.2.0.conv_pwl.weight"},
                                                    {"features.11.block.1.0.weight", "blocks.4.2.conv_dw.weight"},
                                                    {"features.12.0.weight", "blocks.5.0.conv.weight"},
                                                    {"features.12.1.running_mean", "blocks.5.0.bn1.running_mean"},
                                                    {"classifier.0.weight", "conv_head.weight"},
                                                    {"classifier.3.weight", "classifier.weight"}};
  for (const auto& [ours, theirs] : v3) EXPECT_EQ(timm("mobilenet_v3_small", ours), theirs) << ours;
}

TEST(WeightsFile, TheStemThatWouldFitIsNamed) {
  const ModelSpec theirs{{"resnet18", 1, "standard"}, {5, 3, 64}}, ours{{"resnet18", 1, "small"}, {5, 1, 28}};
  auto from = FlatModel::create(theirs).value(), to = FlatModel::create(ours).value();
  TempDir dir;
  ASSERT_TRUE(save_model(dir / "w.safetensors", from));
  const auto loaded = load_weights(to, dir / "w.safetensors");
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().message, HasSubstr("'conv1.weight' [64, 1, 3, 3] (is [64, 3, 7, 7]; with stem: standard"));
}

TEST(WeightsFile, OnlyOursAreModelFiles) {
  auto model = FlatModel::create({{"shufflenet_v2", 0.5, "small"}, {2, 1, 28}}).value();
  TempDir dir;
  ASSERT_TRUE(save_model(dir / "ours.safetensors", model));
  ASSERT_TRUE(write_file(dir / "theirs.safetensors", encode_safetensors({}, {{"format", "pt"}})));
  EXPECT_TRUE(is_model_file(dir / "ours.safetensors").value());
  EXPECT_FALSE(is_model_file(dir / "theirs.safetensors").value());
  EXPECT_EQ(is_model_file(dir / "none.safetensors").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace preceptor::models
