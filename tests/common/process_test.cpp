#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/cpu.h"
#include "common/log.h"

namespace preceptor {
namespace {

TEST(Log, TheEnvironmentSetsTheLevelAndAWrongWordDoesNotSilenceIt) {
  const auto level_for = [](const char* value) {
    value ? ::setenv("PRECEPTOR_LOG", value, 1) : ::unsetenv("PRECEPTOR_LOG");
    set_up_log();
    ::unsetenv("PRECEPTOR_LOG");
    return spdlog::default_logger()->level();
  };
  EXPECT_EQ(level_for("debug"), spdlog::level::debug);
  EXPECT_EQ(level_for("off"), spdlog::level::off);
  EXPECT_EQ(level_for("verbose"), spdlog::level::info);
  EXPECT_EQ(level_for(nullptr), spdlog::level::info);
}

TEST(Cpu, TheSummaryNamesVectorsKernelsAndThreads) {
  EXPECT_THAT(cpu_summary(),
              testing::MatchesRegex("vectors .+, BLAS kernels .+, [0-9]+ hardware threads"));
}

TEST(Cpu, OffLeavesTheEnvironmentAlone) {
  ::unsetenv("OPENBLAS_CORETYPE");
  ::setenv("PRECEPTOR_CPU", "off", 1);
  char* arguments[] = {nullptr};
  arrange_cpu(arguments);  // would start the program again
  EXPECT_EQ(std::getenv("OPENBLAS_CORETYPE"), nullptr);
  ::unsetenv("PRECEPTOR_CPU");
}

}  // namespace
}  // namespace preceptor
