// The kernels of models/kernels against the same mathematics in plain LibTorch, on one thread: both in turn, medians.
// Then how cost grows with the number of tokens, beside softmax attention of the same width.
//   build/release/bench_kernels [--quick]
#include <ATen/Parallel.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/log.h"
#include "models/kernels/kernels.h"

namespace {

using namespace preceptor::models;
using Tensors = std::vector<torch::Tensor>;
using Work = std::function<void()>;

/// Of processor time: on one thread the same as time, but for what others on the machine take.
double milliseconds(const Work& work) {
  const auto start = std::clock();
  work();
  return double(std::clock() - start) * 1e3 / CLOCKS_PER_SEC;
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

/// Median of repeated runs, of which at least three, in about `budget` milliseconds. One run goes before, unmeasured.
double time(const Work& work, double budget) {
  work();
  std::vector<double> runs;
  for (double spent = 0; runs.size() < 3 || (spent < budget && runs.size() < 2000); spent += runs.back())
    runs.push_back(milliseconds(work));
  return median(runs);
}

/// The scan's arguments: u, delta, a, b, c, skip, delta_bias; order.
struct Scan {
  Tensors x;
  torch::Tensor order;

  Scan(int L, int D, int N, bool train) {
    torch::manual_seed(1);
    const auto a = -torch::arange(1, N + 1, torch::kFloat32).expand({1, D, N}).contiguous();
    x = {torch::randn({1, L, D}),    torch::randn({1, 1, L, D}), a,
         torch::randn({1, 1, L, N}), torch::randn({1, 1, L, N}), torch::ones({1, D}), torch::full({1, D}, -4.f)};
    for (auto& tensor : x) tensor.set_requires_grad(train);
    order = torch::arange(L, torch::kInt32).unsqueeze(0);
  }
  torch::Tensor operator()() const { return kernels::selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], x[6], order); }
};

void compare_scan(int L, int D, int N, int rounds) {
  const Scan infer(L, D, N, false), train(L, D, N, true);
  const auto grad = torch::randn({1, L, D});
  const auto forward = [&] { return milliseconds([&] { infer(); }); };
  const auto backward = [&] {
    const auto y = train();
    return milliseconds([&] { torch::autograd::grad({y}, train.x, {grad}); });
  };
  std::vector<double> ours[2], theirs[2], both[2];
  for (int i = 0; i <= rounds; ++i) {  // the first round warms up
    const auto keep = [&](std::vector<double>& list, double value) { if (i > 0) list.push_back(value); };
    const int repeats = i == 0 ? 1 : 5;  // for each run of the reference, which takes longer
    for (int j = 0; j < repeats; ++j) {
      keep(ours[0], forward());
      keep(ours[1], backward());
    }
    const kernels::UseReference reference;
    keep(theirs[0], forward());
    keep(theirs[1], backward());
  }
  const char* names[] = {"forward", "backward"};
  for (int i = 0; i < 2; ++i)
    std::printf("selective scan %5d x %3d x %2d, %-8s  kernel %8.3f ms   reference %9.3f ms   ratio %6.1f\n", L, D, N, names[i],
                median(ours[i]), median(theirs[i]), median(theirs[i]) / median(ours[i]));
}

/// Slope of log(ms) over log(length), by least squares.
double exponent(std::span<const int> lengths, std::span<const double> ms) {
  double x = 0, y = 0, xx = 0, xy = 0;
  const double n = double(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    const double a = std::log(double(lengths[i])), b = std::log(ms[i]);
    x += a, y += b, xx += a * a, xy += a * b;
  }
  return (n * xy - x * y) / (n * xx - x * x);
}

void growth(const char* name, std::span<const int> lengths, double budget, const std::function<Work(int)>& at_length) {
  std::vector<double> ms;
  for (const int length : lengths) ms.push_back(time(at_length(length), budget));
  std::printf("%-24s", name);
  for (const double value : ms) std::printf(" %9.3f", value);
  std::printf("   exponent %.2f\n", exponent(lengths, ms));
}

}  // namespace

int main(int argc, char** argv) {
  preceptor::set_up_log();
  const bool quick = argc > 1 && std::strcmp(argv[1], "--quick") == 0;
  at::set_num_threads(1);
  torch::NoGradGuard no_gradients;  // where none are asked for
  std::printf("instruction set %s, 1 thread\n", kernels::target().c_str());
  {
    torch::AutoGradMode gradients(true);
    compare_scan(3136, 96, 16, quick ? 1 : 7);
    compare_scan(196, 384, 16, quick ? 3 : 15);
    compare_scan(3136, 96, 1, quick ? 1 : 7);
  }
  const auto from = torch::randn({1 << 26}), to = torch::empty_like(from);  // 256 MiB each: beyond any cache
  const double copy = time([&] { to.copy_(from); }, quick ? 0 : 500);
  std::printf("memory copy %.1f GB/s\n", 2.0 * double(from.nbytes()) / copy / 1e6);

  std::vector<int> lengths;
  for (int length = 256; length <= (quick ? 2048 : 16384); length *= 2) lengths.push_back(length);
  std::printf("%-24s", "ms over tokens, D = 96");
  for (const int length : lengths) std::printf(" %9d", length);
  std::printf("\n");
  const double budget = quick ? 20 : 300;
  growth("selective scan, N = 16", lengths, budget, [](int length) { return [scan = Scan(length, 96, 16, false)] { scan(); }; });
  growth("BiWKV", lengths, budget, [](int length) {
    const Tensors x{torch::ones({96}), torch::ones({96}), torch::randn({1, length, 96}), torch::randn({1, length, 96})};
    return [x] { kernels::bi_wkv(x[0], x[1], x[2], x[3]); };
  });
  growth("softmax attention", lengths, budget, [](int length) {
    const Tensors x{torch::randn({length, 96}), torch::randn({length, 96}), torch::randn({length, 96})};
    return [x] { torch::softmax(x[0].matmul(x[1].t()) / std::sqrt(96.0), 1).matmul(x[2]); };
  });
  return 0;
}
