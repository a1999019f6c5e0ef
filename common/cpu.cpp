#include "common/cpu.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>
#include <thread>

namespace preceptor {
namespace {

/// Core name whose OpenBLAS kernels use all of this CPU's vectors; "" where the default is right.
std::string_view best_core() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
    return "SkylakeX";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
  return "";
}

}  // namespace

void arrange_cpu(char** argv) {
  const char* present = std::getenv("OPENBLAS_CORETYPE");
  const char* wanted = std::getenv("PRECEPTOR_CPU");
  // Without PRECEPTOR_CPU, a core that is named already stays.
  const std::string core(wanted ? std::string_view(wanted) : present ? "" : best_core());
  if (core == "off") return;
  const bool other_core = !core.empty() && !(present && core == present);
  if (!other_core && std::getenv("OPENBLAS_NUM_THREADS")) return;  // as it should be: this is the second start
  if (other_core) ::setenv("OPENBLAS_CORETYPE", core.c_str(), 1);
  // A site's LibTorch gets training.threads; BLAS's own pool would come on top.
  ::setenv("OPENBLAS_NUM_THREADS", "1", 0);
  ::execv("/proc/self/exe", argv);
  // Without /proc the program goes on with the kernels that OpenBLAS chose.
}

std::string cpu_summary() {
  using CoreName = char* (*)();
  auto core_name = reinterpret_cast<CoreName>(::dlsym(RTLD_DEFAULT, "openblas_get_corename"));
  const auto vectors = best_core();
  return fmt::format("vectors {}, BLAS kernels {}, {} hardware threads",
                     vectors == "SkylakeX"  ? "AVX-512"
                     : vectors == "Haswell" ? "AVX2"
                                            : "baseline",
                     core_name ? core_name() : "unknown", std::thread::hardware_concurrency());
}

}  // namespace preceptor
