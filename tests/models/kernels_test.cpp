#include "models/kernels/kernels.h"

#include "models/kernels/simd_targets.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>
#include <torch/torch.h>

#include <cmath>
#include <functional>
#include <tuple>

namespace preceptor::models::kernels {
namespace {

using Tensors = std::vector<torch::Tensor>;
const auto kF64 = torch::TensorOptions(torch::kFloat64);

/// Largest difference over the largest magnitude of what is expected; that counts as 1e-12 at least, since the kernels
/// have 1e-38 for every smaller e^x.
double error(const torch::Tensor& got, const torch::Tensor& expected) {
  const auto difference = (got.to(torch::kFloat64) - expected.to(torch::kFloat64)).abs().max().item<double>();
  return difference / std::max(expected.to(torch::kFloat64).abs().max().item<double>(), 1e-12);
}

Tensors leaves(const Tensors& inputs, torch::Dtype type) {
  Tensors copies;
  for (const auto& x : inputs) copies.push_back(x.detach().to(type).clone().requires_grad_());
  return copies;
}

/// y, then the gradients of Σ y·weights by each input.
Tensors with_gradients(const std::function<torch::Tensor(const Tensors&)>& f, const Tensors& inputs) {
  const auto y = f(inputs);
  const auto weights = torch::cos(torch::arange(y.numel(), kF64)).view(y.sizes()).to(y.scalar_type());
  auto results = torch::autograd::grad({(y * weights).sum()}, inputs);
  results.insert(results.begin(), y.detach());
  return results;
}

/// The kernel in float against the reference in double, which gets the same numbers; `tolerance` as in error().
void compare(const std::function<torch::Tensor(const Tensors&)>& f, const Tensors& inputs, double tolerance,
             const std::vector<std::string>& names) {
  const auto exact = with_gradients(f, leaves(inputs, torch::kFloat64)), got = with_gradients(f, leaves(inputs, torch::kFloat32));
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const auto& name = i == 0 ? "y" : names[i - 1];
    ASSERT_TRUE(exact[i].isfinite().all().item<bool>()) << name;
    EXPECT_LE(error(got[i], exact[i]), tolerance) << name;
  }
}

/// The gradients of f in double against central differences.
void check_by_differences(const std::function<torch::Tensor(const Tensors&)>& f, const Tensors& inputs,
                          const std::vector<std::string>& names) {
  const auto x = leaves(inputs, torch::kFloat64);
  const auto gradients = with_gradients(f, x);
  const auto loss = [&] {
    const auto y = f(x);
    return (y * torch::cos(torch::arange(y.numel(), kF64)).view(y.sizes())).sum().item<double>();
  };
  torch::NoGradGuard plain;
  for (std::size_t i = 0; i < x.size(); ++i)
    for (std::int64_t j = 0; j < x[i].numel(); ++j) {
      double& value = x[i].data_ptr<double>()[j];
      const double kept = value, step = 1e-6;
      value = kept + step;
      const double up = loss();
      value = kept - step;
      const double down = loss();
      value = kept;
      EXPECT_NEAR(gradients[i + 1].flatten()[j].item<double>(), (up - down) / (2 * step), 1e-7) << names[i] << " " << j;
    }
}

// ---- selective scan

const std::vector<std::string> kScanNames{"u", "delta", "a", "b", "c", "skip", "delta_bias"};

struct Shape {
  int B, L, D, N, K;
};
std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << "B" << s.B << "L" << s.L << "D" << s.D << "N" << s.N << "K" << s.K;
}

Tensors scan_inputs(const Shape& s) {
  torch::manual_seed(7);
  const auto f = torch::kFloat32;
  return {torch::randn({s.B, s.L, s.D}, f),
          torch::randn({s.K, s.B, s.L, s.D}, f) - 1,
          -torch::rand({s.K, s.D, s.N}, f) * 4 - 0.01,
          torch::randn({s.K, s.B, s.L, s.N}, f),
          torch::randn({s.K, s.B, s.L, s.N}, f),
          torch::randn({s.K, s.D}, f),
          torch::randn({s.K, s.D}, f) - 1};
}

/// By rows, by columns of an image two rows high, and both backwards.
torch::Tensor orders(int K, int L) {
  const auto rows = torch::arange(L, torch::kInt32);
  const auto columns = torch::cat({rows.slice(0, 0, L, 2), rows.slice(0, 1, L, 2)});
  return torch::stack({rows, columns, rows.flip(0), columns.flip(0)}).slice(0, 0, K);
}

std::function<torch::Tensor(const Tensors&)> scan(const torch::Tensor& order) {
  return [order](const Tensors& x) { return selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], x[6], order); };
}

class ScanShapes : public testing::TestWithParam<Shape> {};

TEST_P(ScanShapes, KernelAndReferenceAgreeInValuesAndAllGradients) {
  const auto s = GetParam();
  compare(scan(orders(s.K, s.L)), scan_inputs(s), 3e-6, kScanNames);
}

INSTANTIATE_TEST_SUITE_P(SelectiveScan, ScanShapes,
                         testing::Values(Shape{1, 1, 1, 1, 1}, Shape{2, 1, 16, 16, 1}, Shape{1, 7, 5, 8, 2},
                                         Shape{2, 32, 17, 16, 4}, Shape{3, 33, 33, 5, 4}, Shape{1, 64, 16, 1, 2}, Shape{2, 100, 48, 16, 4},
                                         Shape{1, 50, 31, 31, 1}, Shape{1, 200, 3, 33, 2}, Shape{2, 65, 96, 24, 3}),
                         testing::PrintToStringParamName());

TEST(SelectiveScan, ReferenceIsTheRecurrenceWrittenOut) {
  const Shape s{2, 4, 3, 2, 2};
  const auto x = leaves(scan_inputs(s), torch::kFloat64);
  const auto order = torch::tensor({{0, 1, 2, 3}, {2, 0, 3, 1}}, torch::kInt32);
  auto y = torch::zeros({s.B, s.L, s.D}, kF64);
  torch::NoGradGuard plain;
  for (int k = 0; k < s.K; ++k)
    for (int n = 0; n < s.B; ++n) {
      auto h = torch::zeros({s.D, s.N}, kF64);
      for (int t = 0; t < s.L; ++t) {
        const int p = order[k][t].item<int>();
        const auto u = x[0][n][p], d = torch::log1p(torch::exp(x[1][k][n][p] + x[6][k]));
        h = torch::exp(d.unsqueeze(1) * x[2][k]) * h + (d * u).unsqueeze(1) * x[3][k][n][p].unsqueeze(0);
        y[n][p] += (h * x[4][k][n][p]).sum(1) + x[5][k] * u;
      }
    }
  EXPECT_LE(error(scan(order)(x), y), 1e-12);
}

TEST(SelectiveScan, ReferenceHasTheGradientsOfFiniteDifferences) {
  const Shape s{1, 5, 2, 3, 2};
  check_by_differences(scan(orders(s.K, s.L)), scan_inputs(s), kScanNames);
}

TEST(SelectiveScan, StridedViewsAreReadInPlace) {
  const Shape s{2, 40, 20, 4, 2};
  auto x = scan_inputs(s);
  const auto plain = selective_scan(x[0], x[1], x[2], x[3], x[4], x[5], x[6], orders(s.K, s.L));
  // b and c as neighbours in one row, orders inside of samples, as a projection leaves them; delta likewise.
  const auto both = torch::cat({x[3], x[4]}, 3).transpose(0, 1).contiguous().transpose(0, 1);
  const auto delta = x[1].permute({1, 2, 0, 3}).contiguous().permute({2, 0, 1, 3});
  ASSERT_FALSE(delta.is_contiguous());
  const auto b = both.narrow(3, 0, s.N), c = both.narrow(3, s.N, s.N);
  const auto y = selective_scan(x[0], delta, x[2], b, c, x[5], x[6], orders(s.K, s.L));
  EXPECT_TRUE(torch::equal(y, plain));
}

TEST(SelectiveScan, ValuesAreTheSameWithAndWithoutAutograd) {
  const Shape s{2, 70, 21, 16, 4};
  const auto x = leaves(scan_inputs(s), torch::kFloat32);
  const auto y = scan(orders(s.K, s.L))(x);
  torch::NoGradGuard plain;
  EXPECT_TRUE(torch::equal(scan(orders(s.K, s.L))(x), y));
}

TEST(SelectiveScan, ResultsDoNotDependOnTheNumberOfThreads) {
  const Shape s{3, 70, 40, 5, 2};
  const auto threads = torch::get_num_threads();
  const auto x = leaves(scan_inputs(s), torch::kFloat32);
  torch::set_num_threads(1);
  const auto one = with_gradients(scan(orders(s.K, s.L)), x);
  torch::set_num_threads(2);
  const auto two = with_gradients(scan(orders(s.K, s.L)), x);
  torch::set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(torch::equal(one[i], two[i])) << i;
}

TEST(SelectiveScan, ExtremeStepsAndDecaysStayFinite) {
  const Shape s{1, 90, 18, 8, 2};
  for (const float shift : {-200.f, -30.f, 30.f, 1e4f})
    for (const float decay : {1e-9f, 1e3f}) {
      SCOPED_TRACE(testing::Message() << "delta + " << shift << ", a = " << -decay);
      auto x = scan_inputs(s);
      x[1] += shift;
      x[2].fill_(-decay);
      for (const auto& result : with_gradients(scan(orders(s.K, s.L)), leaves(x, torch::kFloat32)))
        EXPECT_TRUE(result.isfinite().all().item<bool>());
      // A step of 1e4 and hardly any decay: h grows to 1e6, and gradients are sums that cancel.
      compare(scan(orders(s.K, s.L)), x, 3e-5, kScanNames);
    }
}

TEST(SelectiveScan, WhatIsNotANumberIsNotHidden) {
  const Shape s{1, 9, 18, 8, 1};
  for (const int i : {0, 1, 2, 3, 4, 5, 6}) {
    auto x = scan_inputs(s);
    x[std::size_t(i)].fill_(NAN);
    EXPECT_TRUE(scan(orders(s.K, s.L))(x).isnan().any().item<bool>()) << kScanNames[std::size_t(i)];
  }
}

TEST(SelectiveScan, MisuseThrows) {
  const Shape s{2, 6, 4, 3, 2};
  const auto x = scan_inputs(s);
  const auto order = orders(s.K, s.L);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto wrong = x;
    wrong[i] = x[i].narrow(-1, 0, 1);
    EXPECT_THROW(scan(order)(wrong), c10::Error) << kScanNames[i];
  }
  auto growing = x;
  growing[2] = -x[2];
  EXPECT_THROW(scan(order)(growing), c10::Error);
  auto columns = x;
  columns[3] = x[3].transpose(2, 3).contiguous().transpose(2, 3);
  EXPECT_THROW(scan(order)(columns), c10::Error);
  EXPECT_THROW(scan(order.to(torch::kInt64))(x), c10::Error);
  EXPECT_THROW(scan(order - 1)(x), c10::Error);
  EXPECT_THROW(scan(order + 1)(x), c10::Error);
  EXPECT_THROW(scan(order.slice(0, 0, 1))(x), c10::Error);
}

// ---- BiWKV

const std::vector<std::string> kWkvNames{"decay", "first", "k", "v"};

torch::Tensor wkv(const Tensors& x) { return bi_wkv(x[0], x[1], x[2], x[3]); }

Tensors wkv_inputs(int B, int T, int C) {
  torch::manual_seed(8);
  return {torch::randn({C}) * 4 + 2, torch::randn({C}) * 2, torch::randn({B, T, C}) * 2, torch::randn({B, T, C})};
}

class WkvShapes : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(WkvShapes, KernelAndReferenceAgreeInValuesAndAllGradients) {
  const auto [B, T, C] = GetParam();
  if (T == 1) {  // y = v: no other gradient is anything but 0
    const auto x = leaves(wkv_inputs(B, T, C), torch::kFloat32);
    EXPECT_LE(error(wkv(x), x[3]), 1e-7);
    return;
  }
  compare(wkv, wkv_inputs(B, T, C), 1e-5, kWkvNames);
}

INSTANTIATE_TEST_SUITE_P(BiWkv, WkvShapes,
                         testing::Values(std::tuple(2, 1, 16), std::tuple(1, 3, 1), std::tuple(2, 7, 5), std::tuple(3, 64, 16),
                                         std::tuple(1, 65, 33), std::tuple(2, 196, 48)));

TEST(BiWkv, ReferenceIsTheSumWrittenOut) {
  const int B = 2, T = 5, C = 3;
  const auto x = leaves(wkv_inputs(B, T, C), torch::kFloat64);
  torch::NoGradGuard plain;
  const auto y = wkv(x);
  for (int n = 0; n < B; ++n)
    for (int t = 0; t < T; ++t) {
      auto top = torch::zeros({C}, kF64), bottom = top.clone();
      for (int i = 0; i < T; ++i) {
        const auto weight = torch::exp((i == t ? x[1] / T : -(std::abs(t - i) - 1) * x[0] / T) + x[2][n][i]);
        top += weight * x[3][n][i];
        bottom += weight;
      }
      EXPECT_LE(error(y[n][t], top / bottom), 1e-12);
    }
}

TEST(BiWkv, ReferenceHasTheGradientsOfFiniteDifferences) { check_by_differences(wkv, wkv_inputs(2, 5, 3), kWkvNames); }

TEST(BiWkv, ValuesAreTheSameWithAndWithoutAutogradAndForStridedViews) {
  const auto x = leaves(wkv_inputs(2, 21, 19), torch::kFloat32);
  const auto y = wkv(x);
  torch::NoGradGuard plain;
  EXPECT_TRUE(torch::equal(wkv(x), y));
  const auto both = torch::cat({x[2], x[3]}, 2);
  EXPECT_TRUE(torch::equal(bi_wkv(x[0], x[1], both.narrow(2, 0, 19), both.narrow(2, 19, 19)), y));
}

TEST(BiWkv, WhatIsNotANumberIsNotHidden) {
  for (const std::size_t i : {0, 1, 2, 3}) {
    auto x = wkv_inputs(1, 9, 18);
    x[i].fill_(NAN);
    EXPECT_TRUE(wkv(x).isnan().any().item<bool>()) << kWkvNames[i];
  }
}

TEST(BiWkv, ExtremeKeysAndDecaysStayFinite) {
  for (const float scale : {1.f, 80.f})
    for (const float decay : {-20.f, 0.f, 1e-6f, 500.f, 1e5f}) {
      SCOPED_TRACE(testing::Message() << "keys of " << scale << ", decay " << decay);
      auto x = wkv_inputs(2, 150, 17);
      x[0].fill_(decay);
      x[2] = torch::sign(x[2]) * scale;
      const auto got = with_gradients(wkv, leaves(x, torch::kFloat32)), exact = with_gradients(wkv, leaves(x, torch::kFloat64));
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_TRUE(got[i].isfinite().all().item<bool>()) << i;
        // Gradients of almost nothing are compared by what they are beside those of v, which are about 1.
        const auto most = [](const torch::Tensor& values) { return values.abs().max().item<double>(); };
        EXPECT_LE(most(got[i].to(torch::kFloat64) - exact[i]), 2e-5 * std::max(1.0, most(exact[i]))) << i;
      }
    }
}

TEST(BiWkv, OneLargeKeyThatDecaysGivesWayToSmallOnes) {
  auto x = wkv_inputs(1, 300, 4);
  x[0].fill_(300.f);  // e^−1 a step: the key of 80 fades among the others after 80 steps
  x[2].zero_();
  x[2].select(1, 20).fill_(80.f);
  compare(wkv, x, 1e-5, kWkvNames);
}

TEST(BiWkv, LongSequencesDoNotDrift) {
  const int T = 2000;
  auto x = wkv_inputs(1, T, 2);
  x[0].fill_(1.7f);
  x[2].fill_(70.f);
  x[2].select(1, 0).fill_(77.7f);  // half of the sum hangs on the first token, up to T steps away
  compare(wkv, x, 5e-5, kWkvNames);
}

TEST(BiWkv, MisuseThrows) {
  const auto x = wkv_inputs(2, 6, 4);
  for (std::size_t i = 0; i < x.size(); ++i) {
    auto wrong = x;
    wrong[i] = x[i].narrow(-1, 0, 1);
    EXPECT_THROW(wkv(wrong), c10::Error) << kWkvNames[i];
  }
}

// ---- both

TEST(UseReference, HoldsForItsLifeOnItsThread) {
  EXPECT_FALSE(UseReference::active());
  {
    UseReference outer;
    { UseReference inner; }
    EXPECT_TRUE(UseReference::active());
    const auto x = scan_inputs({1, 40, 20, 4, 1});
    const auto order = orders(1, 40);
    EXPECT_TRUE(torch::equal(scan(order)(x), selective_scan_reference(x[0], x[1], x[2], x[3], x[4], x[5], x[6], order)));
  }
  EXPECT_FALSE(UseReference::active());
}

/// Every instruction set that is compiled in and that this machine has, by its bit.
class Targets : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override { hwy::SetSupportedTargetsForTest(GetParam()); }
  void TearDown() override { hwy::SetSupportedTargetsForTest(0); }
};

TEST_P(Targets, AgreeWithTheReference) {
  EXPECT_EQ(target(), hwy::TargetName(GetParam()));
  for (const auto& s : {Shape{2, 40, 19, 5, 2}, Shape{1, 70, 33, 16, 4}})
    compare(scan(orders(s.K, s.L)), scan_inputs(s), 3e-6, kScanNames);
  compare(wkv, wkv_inputs(2, 70, 21), 1e-5, kWkvNames);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Targets, testing::ValuesIn(hwy::SupportedAndGeneratedTargets()),
                         [](const auto& bit) { return hwy::TargetName(bit.param); });

}  // namespace
}  // namespace preceptor::models::kernels
