#include "deploy/energy.h"

#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace preceptor::deploy {
namespace {

void write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(EnergyMeter, CountsPackagesAndNotTheirParts) {
  const test::TempDir dir;
  write(dir / "intel-rapl:0/energy_uj", "1000000");
  write(dir / "intel-rapl:0/max_energy_range_uj", "10000000");
  write(dir / "intel-rapl:0:0/energy_uj", "5");
  const EnergyMeter meter(dir.path().string());
  write(dir / "intel-rapl:0/energy_uj", "3500000");
  write(dir / "intel-rapl:0:0/energy_uj", "900000000");
  EXPECT_DOUBLE_EQ(meter.joules().value(), 2.5);
}

TEST(EnergyMeter, FollowsACounterThatStartsAnew) {
  const test::TempDir dir;
  write(dir / "intel-rapl:0/energy_uj", "9000000");
  write(dir / "intel-rapl:0/max_energy_range_uj", "10000000");
  const EnergyMeter meter(dir.path().string());
  write(dir / "intel-rapl:0/energy_uj", "500000");
  EXPECT_DOUBLE_EQ(meter.joules().value(), 1.5);
}

TEST(EnergyMeter, SaysSoWhereTheMachineCannotTell) {
  const test::TempDir dir;
  EXPECT_FALSE(EnergyMeter(dir.path().string()).joules());
  EXPECT_FALSE(EnergyMeter("/nowhere").joules());
}

}  // namespace
}  // namespace preceptor::deploy
