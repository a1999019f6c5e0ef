#pragma once
#include <string>

namespace preceptor {

/// Makes BLAS use the vectors that this CPU has. OpenBLAS falls back to slow kernels on CPUs newer
/// than itself and reads OPENBLAS_CORETYPE when it loads, i.e. before main: so this sets the
/// variable and starts the program once again in place (execv), before any thread. Call first in
/// main. An OPENBLAS_CORETYPE that is already set stays. PRECEPTOR_CPU overrides: "off" (let OpenBLAS choose) or a core name such as Haswell or
/// SkylakeX.
void arrange_cpu(char** argv);

/// One line for the log: vectors found, core type in use, threads.
std::string cpu_summary();

}  // namespace preceptor
