#include "coordinator/downlink.h"

#include "tests/coordinator/made.h"

namespace preceptor::coordinator {
namespace {

using test::made_delta;
using test::made_space;
using testing::IsEmpty;
using testing::SizeIs;

transport::Blob blob_of(std::span<const float> values) {
  const auto bytes = std::as_bytes(values);
  return std::make_shared<const Bytes>(bytes.begin(), bytes.end());
}

class DownlinkTest : public testing::Test {
 protected:
  /// A round that adds `scale` times noise to the exact model.
  void round(Downlink& downlink, std::uint32_t number, double scale = 0.01) {
    const auto step = made_delta(space, number, scale);
    const auto exact = downlink.exact();
    for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += step[i];
    downlink.publish(number);
  }
  Bytes blob(const Digest& digest, std::uint64_t bytes) const {
    const auto chunk = shelf.serve({digest, 0, std::uint32_t(bytes)});
    return chunk ? chunk->bytes : Bytes{};
  }

  const ParameterSpace space = made_space(4000);
  const compression::ModelDelta delta = compression::ModelDelta::create({"delta", 8}, space).value();
  const transport::Blob initial = blob_of(made_delta(space, 99, 1));
  transport::BlobShelf shelf;
};

TEST_F(DownlinkTest, WithoutDeltasEveryVersionIsTheExactModelAndThereAreNoPatches) {
  Downlink downlink(nullptr, 1, shelf, initial);
  EXPECT_EQ(downlink.model(), initial);
  round(downlink, 1);
  EXPECT_THAT(downlink.patches(), IsEmpty());
  EXPECT_EQ(blob(downlink.digest(), 1 << 18), *downlink.model());
  EXPECT_THAT(blob(sha256(*initial), 1 << 18), IsEmpty()) << "the old version is not kept";
  const auto expected = made_delta(space, 99, 1), step = made_delta(space, 1);
  const auto* got = reinterpret_cast<const float*>(downlink.model()->data());
  for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(got[i], expected[i] + step[i]);
}

TEST_F(DownlinkTest, EveryPatchLeadsFromItsBaseToTheNext) {
  Downlink downlink(&delta, 1, shelf, initial);
  for (std::uint32_t r = 1; r <= 3; ++r) round(downlink, r);
  ASSERT_THAT(downlink.patches(), SizeIs(3));
  auto model = *initial;
  for (const auto& patch : downlink.patches()) {
    EXPECT_EQ(sha256(model), patch.base);
    ASSERT_TRUE(delta.apply(blob(patch.delta, patch.bytes), patch.round, {reinterpret_cast<float*>(model.data()), space.size()}));
  }
  EXPECT_EQ(sha256(model), downlink.digest());
  EXPECT_EQ(model, *downlink.model());
}

TEST_F(DownlinkTest, APatchIsAQuarterOfTheModelAtEightBits) {
  Downlink downlink(&delta, 1, shelf, initial);
  round(downlink, 1);
  EXPECT_LT(downlink.patches().at(0).bytes, initial->size() / 3);
}

TEST_F(DownlinkTest, OldPatchesAreForgottenAndTogetherTheyAreShorterThanTheModel) {
  Downlink downlink(&delta, 1, shelf, initial);
  for (std::uint32_t r = 1; r <= 9; ++r) {
    round(downlink, r);
    std::uint64_t bytes = 0;
    for (const auto& patch : downlink.patches()) bytes += patch.bytes;
    EXPECT_LT(bytes, initial->size());
    EXPECT_LE(downlink.patches().size(), Downlink::kHistory);
    EXPECT_FALSE(downlink.patches().empty());
  }
}

TEST_F(DownlinkTest, TheSameRoundsGiveTheSameBytes) {
  transport::BlobShelf other;
  Downlink a(&delta, 1, shelf, initial), b(&delta, 1, other, initial), c(&delta, 2, other, initial);
  for (auto* downlink : {&a, &b, &c}) round(*downlink, 1);
  EXPECT_EQ(a.digest(), b.digest());
  EXPECT_EQ(a.patches().at(0).delta, b.patches().at(0).delta);
  EXPECT_NE(a.digest(), c.digest());
}

TEST_F(DownlinkTest, PublishedSumsArePatchesOfTheExactModelAndTheNewestIsKeptWhateverItsLength) {
  Downlink downlink(nullptr, 1, shelf, initial);
  for (std::uint32_t r = 1; r <= 9; ++r) {
    const auto before = downlink.digest();
    const auto step = made_delta(space, r);
    const auto exact = downlink.exact();
    for (std::size_t i = 0; i < exact.size(); ++i) exact[i] += step[i];
    const auto size = r < 9 ? initial->size() * 2 / 5 : initial->size() + 12;
    downlink.publish(r, Bytes(size, std::byte(r)));
    const auto patches = downlink.patches();
    ASSERT_FALSE(patches.empty());
    EXPECT_EQ(patches.back().base, before);
    EXPECT_EQ(patches.back().round, r);
    EXPECT_EQ(blob(patches.back().delta, patches.back().bytes), Bytes(size, std::byte(r)));
    EXPECT_EQ(patches.size(), r == 1 || r == 9 ? 1u : 2u);
  }
}

TEST_F(DownlinkTest, ABrokenPatchIsAnErrorAndNoCrash) {
  Downlink downlink(&delta, 1, shelf, initial);
  round(downlink, 1);
  const auto patch = downlink.patches().at(0);
  const auto bytes = blob(patch.delta, patch.bytes);
  for (std::size_t length = 0; length < bytes.size(); length += 97) {
    auto model = *initial;
    EXPECT_FALSE(delta.apply(std::span(bytes).first(length), 1, {reinterpret_cast<float*>(model.data()), space.size()}));
  }
}

}  // namespace
}  // namespace preceptor::coordinator
