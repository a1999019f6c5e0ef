#include "models/kernels/kernels.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace preceptor::models::kernels {
namespace {

TEST(SelectiveScan, ReferenceIsTheRecurrenceWrittenOut) {
  torch::manual_seed(1);
  const auto f64 = torch::kFloat64;
  const int K = 2, B = 2, L = 4, D = 3, N = 2;
  const auto u = torch::randn({B, L, D}, f64), delta = torch::randn({K, B, L, D}, f64), a = -torch::rand({K, D, N}, f64),
             b = torch::randn({K, B, L, N}, f64), c = torch::randn({K, B, L, N}, f64), skip = torch::randn({K, D}, f64),
             bias = torch::randn({K, D}, f64);
  const auto order = torch::tensor({{0, 1, 2, 3}, {2, 0, 3, 1}}, torch::kInt32);
  auto y = torch::zeros({B, L, D}, f64);
  for (int k = 0; k < K; ++k)
    for (int n = 0; n < B; ++n) {
      auto h = torch::zeros({D, N}, f64);
      for (int t = 0; t < L; ++t) {
        const int p = order[k][t].item<int>();
        const auto d = torch::log1p(torch::exp(delta[k][n][p] + bias[k]));
        h = torch::exp(d.unsqueeze(1) * a[k]) * h + (d * u[n][p]).unsqueeze(1) * b[k][n][p].unsqueeze(0);
        y[n][p] += (h * c[k][n][p]).sum(1) + skip[k] * u[n][p];
      }
    }
  EXPECT_TRUE(torch::allclose(selective_scan_reference(u, delta, a, b, c, skip, bias, order), y, 1e-10, 1e-12));
}

TEST(BiWkv, ReferenceIsTheSumWrittenOut) {
  torch::manual_seed(2);
  const int B = 2, T = 5, C = 3;
  const auto decay = torch::randn({C}, torch::kFloat64), first = torch::randn({C}, torch::kFloat64),
             k = torch::randn({B, T, C}, torch::kFloat64), v = torch::randn({B, T, C}, torch::kFloat64);
  const auto y = bi_wkv_reference(decay, first, k, v);
  for (int n = 0; n < B; ++n)
    for (int t = 0; t < T; ++t) {
      auto top = torch::zeros({C}, torch::kFloat64), bottom = top.clone();
      for (int i = 0; i < T; ++i) {
        const auto w = torch::exp((i == t ? first / T : -(std::abs(t - i) - 1) * decay / T) + k[n][i]);
        top += w * v[n][i];
        bottom += w;
      }
      EXPECT_TRUE(torch::allclose(y[n][t], top / bottom, 1e-10, 1e-12));
    }
}

}  // namespace
}  // namespace preceptor::models::kernels
