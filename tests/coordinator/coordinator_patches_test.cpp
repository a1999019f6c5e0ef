#include "tests/coordinator/hall.h"

namespace preceptor::coordinator {
namespace {

using namespace std::chrono_literals;
using namespace transport;
using testing::SizeIs;
using namespace test;

/// A job long enough that updates by delta are told from whole models.
RoundOptions by_delta(int bits) {
  return {.rounds = 6, .sites = 2, .quorum = 1, .downlink = {.mode = "delta", .bits = bits}};
}

TEST(Coordinator, ModelsTravelAsPatchesAndEverySiteHasTheCoordinatorsModelToTheBit) {
  Hall hall(by_delta(8), 1, false, 2000);
  for (const auto* name : {"amber", "birch"}) hall.connect(name);
  hall.run();  // FakeSite compares the hash of each model
  for (const auto& [name, site] : hall.sites) {
    EXPECT_EQ(site.whole, 1) << name << ": the first round only";
    EXPECT_EQ(site.patches, 6) << name << ": five rounds and the last model";
    EXPECT_THAT(site.accepted, SizeIs(6));
  }
}

TEST(Coordinator, ASiteThatMissedARoundFetchesBothPatches) {
  Hall hall(by_delta(8), 1, false, 2000);
  hall.connect("amber");
  auto& birch = hall.connect("birch");
  hall.run_rounds(2);
  hall.disconnect("birch", "power cut");
  hall.run_rounds(3);
  const auto patches = birch.patches;
  hall.connect("birch");
  hall.run();
  EXPECT_EQ(birch.whole, 1);
  EXPECT_GE(birch.patches, patches + 2);
  EXPECT_TRUE(hall.finished->completed);
}

TEST(Coordinator, ANewSiteAndOneThatMissedTooMuchFetchTheWholeModel) {
  auto options = by_delta(8);
  options.rounds = 10;
  Hall hall(options, 1, false, 2000);
  hall.connect("amber");
  auto& birch = hall.connect("birch");
  hall.run_rounds(1);
  hall.disconnect("birch", "power cut");
  hall.run_rounds(8);
  hall.connect("birch");
  auto& cedar = hall.connect("cedar");
  hall.run();
  EXPECT_EQ(birch.whole, 2) << "seven versions later";
  EXPECT_EQ(cedar.whole, 1);
  EXPECT_GE(cedar.patches, 1);
}

TEST(Coordinator, WhatAPatchLosesIsInTheNextOne) {
  const auto run = [](RoundOptions options) {
    Hall hall(options, 1, false, 2000);
    for (const auto* name : {"amber", "birch"}) hall.connect(name);
    hall.run();
    const auto values = floats_of(hall.machine->model());
    return std::vector<float>(values.begin(), values.end());
  };
  auto whole = by_delta(8);
  whole.downlink.mode = "full";
  // Sites pull every value towards zero by a tenth a round: what four bits lost of it must not be lost for good.
  const auto exact = run(whole), coarse = run(by_delta(4)), fine = run(by_delta(8));
  const auto apart = [&](const std::vector<float>& other) {
    double most = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) most = std::max(most, std::abs(double(other[i]) - exact[i]));
    return most;
  };
  EXPECT_GT(apart(coarse), 0);
  EXPECT_LT(apart(coarse), 0.01) << "one round's step of four bits, not six of them";
  EXPECT_LT(apart(fine), 1e-3);
}

}  // namespace
}  // namespace preceptor::coordinator
