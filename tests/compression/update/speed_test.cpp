#include <chrono>
#include <cstdio>

#include "tests/compression/update/support.h"

namespace preceptor::compression::test {
namespace {

/// Not a check: prints what the pipelines of the table make of 4 Mi floats.
///   test_compression_update --gtest_also_run_disabled_tests --gtest_filter=*Speed*
TEST(Pipeline, DISABLED_Speed) {
  const auto update = layered_update(4 << 20);
  const auto megabytes = double(update.size() * sizeof(float)) / 1e6;
  std::printf("%-50s %8s %8s %9s %9s\n", "pipeline", "ratio", "vNMSE", "enc MB/s", "dec MB/s");
  for (const auto& stages : pipelines()) {
    const auto pipeline = make(stages);
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const auto bytes = pipeline.encode(update, 1);
    const auto middle = Clock::now();
    const auto decoded = pipeline.decode(bytes, update.size());
    const std::chrono::duration<double> encode = middle - start, decode = Clock::now() - middle;
    ASSERT_TRUE(decoded) << decoded.error().message;
    std::printf("%-50s %8.2f %8.1e %9.0f %9.0f\n", describe(stages).c_str(),
                megabytes * 1e6 / double(bytes.size()), relative_error(update, *decoded),
                megabytes / encode.count(), megabytes / decode.count());
  }
}

}  // namespace
}  // namespace preceptor::compression::test
