// Runs a fuzz target without libFuzzer: seeds, then `argv[1]` seeded mutations of them. A crash prints the
// input's hex first with FUZZ_VERBOSE set; memory is capped so that an allocation bomb fails the test.
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>

#include "common/hash.h"
#include "common/random.h"
#include "fuzz/fuzz.h"

namespace {

void mutate(std::vector<std::uint8_t>& input, preceptor::RandomStream& random) {
  static constexpr std::uint8_t kNasty[] = {0, 1, 0x7f, 0x80, 0xfe, 0xff};
  for (auto edits = 1 + random.below(4); edits > 0; --edits) {
    const auto at = input.empty() ? 0 : random.below(input.size());
    switch (random.below(6)) {
      case 0: if (!input.empty()) input[at] ^= std::uint8_t(1u << random.below(8)); break;
      case 1: if (!input.empty()) input[at] = kNasty[random.below(sizeof kNasty)]; break;
      case 2: input.resize(at); break;
      case 3: input.insert(input.begin() + std::ptrdiff_t(at), 1 + random.below(16), std::uint8_t(random.bits32())); break;
      case 4: if (!input.empty()) input.erase(input.begin() + std::ptrdiff_t(at)); break;
      case 5:  // a 4-byte field of all ones: sizes and counts
        for (std::size_t i = at; i < input.size() && i < at + 4; ++i) input[i] = 0xff;
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  const rlimit cap{std::size_t{2} << 30, std::size_t{2} << 30};
  setrlimit(RLIMIT_AS, &cap);
#endif
  const auto start = seeds();
  if (start.empty()) return std::fprintf(stderr, "no seeds\n"), 1;
  for (const auto& seed : start) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  preceptor::RandomStream random(1, "fuzz");
  const bool verbose = std::getenv("FUZZ_VERBOSE") != nullptr;
  const long runs = argc > 1 ? std::atol(argv[1]) : 20000;
  for (long run = 0; run < runs; ++run) {
    auto input = start[random.below(start.size())];
    mutate(input, random);
    if (verbose) std::fprintf(stderr, "%ld %s\n", run, preceptor::hex(std::as_bytes(std::span(input))).c_str());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu seeds, %ld mutations, no finding\n", start.size(), runs);
}
